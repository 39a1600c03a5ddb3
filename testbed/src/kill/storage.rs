//! A checkpoint or a restore that is killed or gets a signal at a random moment.

use std::thread;
use std::time::Duration;

use super::fault::{choose, words};
use super::{ALONE, Context, Ending, Limits, Random, Role, SIGKILL, Scene, engines};
use crate::godwit::Call;
use crate::workload::alive;

const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;
const LIMITS: Limits = Limits { alone: ALONE, recover: true, gap: Duration::from_secs(20) };

impl Context<'_> {
    /// Either the tree runs on, or it has ended and its checkpoint is complete.
    pub(super) fn checkpoint(
        &self,
        scene: Scene,
        moment: Duration,
        random: &mut Random,
        what: &mut String,
    ) -> Result<Ending, String> {
        let directory = scene.run.directory().join("checkpoint").display().to_string();
        let pid = scene.run.pid.to_string();
        let mut arguments = vec!["checkpoint", &pid, &directory];
        if random.below(3) == 0 {
            arguments.push("--leave-running");
        }
        let call = self.call(&scene.pair.source, &scene, &arguments)?;
        thread::sleep(moment);
        let struck = self.strike(&scene, random);
        *what = format!("checkpoint: {struck}");
        let (_, said) = call.end()?;
        // A guardian may still be at work; what it cannot do is left to a recovery.
        let settled = self.await_settled(&scene, &mut self.nothing(&scene)?, ALONE);
        if settled.is_err() {
            self.call(&scene.pair.source, &scene, &["recover"])?.end()?;
        }
        if settled.is_err() && !alive(&scene.pair.source, scene.run.pid) {
            self.revive(&scene, &directory).map_err(|error| format!("{error}; checkpoint: {said}"))?;
        }
        let nothing = self.nothing(&scene)?;
        self.conclude(scene, nothing, LIMITS)
    }

    /// Either the tree runs, or nothing of it is there and the checkpoint can be restored once more.
    pub(super) fn restore(
        &self,
        scene: Scene,
        moment: Duration,
        random: &mut Random,
        what: &mut String,
    ) -> Result<Ending, String> {
        let directory = scene.run.directory().join("checkpoint").display().to_string();
        let pid = scene.run.pid.to_string();
        let (status, said) = self.call(&scene.pair.source, &scene, &["checkpoint", &pid, &directory])?.end()?;
        if !status.success() {
            return Err(said);
        }
        let call = self.call(&scene.pair.source, &scene, &["restore", &directory, "--detach"])?;
        thread::sleep(moment);
        let struck = self.strike(&scene, random);
        *what = format!("restore: {struck}");
        let (status, said) = call.end()?;
        let settled = self.await_settled(&scene, &mut self.nothing(&scene)?, Duration::from_secs(1));
        if settled.is_err() {
            self.call(&scene.pair.source, &scene, &["recover"])?.end()?;
        }
        if settled.is_err() && !alive(&scene.pair.source, scene.run.pid) {
            self.revive(&scene, &directory).map_err(|error| format!("{error}; restore: {status}, {said}"))?;
        }
        let nothing = self.nothing(&scene)?;
        self.conclude(scene, nothing, LIMITS)
    }

    /// Kills godwit at the source, or asks it to end.
    fn strike(&self, scene: &Scene, random: &mut Random) -> String {
        let mut found = engines(&self.settings.godwit, &scene.pair.source, false);
        let (number, name) =
            [(SIGKILL, "SIGKILL"), (SIGKILL, "SIGKILL"), (SIGINT, "SIGINT"), (SIGTERM, "SIGTERM")][random.below(4)];
        if number != SIGKILL {
            found.retain(|(role, _)| *role == Role::Migrate);
        }
        let victims = choose(found, random);
        for (_, handle) in &victims {
            // It may have ended by itself just now.
            let _ = handle.send_signal(number);
        }
        let mut roles: Vec<Role> = victims.iter().map(|(role, _)| *role).collect();
        roles.sort_unstable();
        roles.dedup();
        format!("{} got {name}", words(&roles).replace("migrate", "engine").replace("source guardian", "guardian"))
    }

    fn revive(&self, scene: &Scene, directory: &str) -> Result<(), String> {
        let (status, said) = self.call(&scene.pair.source, scene, &["restore", directory, "--detach"])?.end()?;
        if status.success() { Ok(()) } else { Err(format!("nothing of it runs, and a restore says: {said}")) }
    }

    /// A call of godwit that has nothing to do with the tree.
    fn nothing(&self, scene: &Scene) -> Result<Call, String> {
        self.call(&scene.pair.source, scene, &["--version"])
    }
}
