//! `godwit migrate PID ssh://…`: through a real ssh to a real sshd on the other host, with no daemon of ours there.
use godwit_testbed::{Host, Options, Pair, leftover};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const GODWIT: &str = env!("CARGO_BIN_EXE_godwit");
const SSHD: &str = "/usr/sbin/sshd";
const PATIENCE: Duration = Duration::from_secs(20);
const PORT: u16 = 2222;

/// A directory that both hosts see and that goes with the test.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A server that ends with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn await_that(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < PATIENCE, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn numbers(path: &Path) -> Vec<u64> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

fn alive(host: &Host, pid: &str) -> bool {
    Path::new(&format!("/proc/{}/root/proc/{pid}", host.init_pid())).exists()
}

/// Keys, and the configurations of both ends.
fn configure(scratch: &Path, address: &str) {
    for name in ["host_key", "user_key"] {
        let mut command = Command::new("ssh-keygen");
        command.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(scratch.join(name));
        assert!(command.status().expect("ssh-keygen runs").success());
    }
    let shown = scratch.display();
    let server = format!(
        "Port {PORT}\nListenAddress {address}\nHostKey {shown}/host_key\nAuthorizedKeysFile {shown}/user_key.pub\n\
         StrictModes no\nUsePAM no\nPasswordAuthentication no\nPidFile none\nPermitRootLogin yes\nLogLevel ERROR\n"
    );
    let host_key = std::fs::read_to_string(scratch.join("host_key.pub")).expect("a public key");
    std::fs::write(scratch.join("known"), format!("[{address}]:{PORT} {host_key}")).expect("writable");
    let client = format!("IdentityFile {shown}/user_key\nUserKnownHostsFile {shown}/known\nBatchMode yes\n");
    std::fs::write(scratch.join("sshd_config"), server).expect("writable");
    std::fs::write(scratch.join("ssh_config"), client).expect("writable");
    // The user's own ssh, with this configuration in place of the user's.
    std::fs::create_dir(scratch.join("bin")).expect("a directory");
    let script = format!("#!/bin/sh\nexec /usr/bin/ssh -F {shown}/ssh_config \"$@\"\n");
    std::fs::write(scratch.join("bin/ssh"), script).expect("writable");
    let status = Command::new("chmod").arg("755").arg(scratch.join("bin/ssh")).status().expect("chmod runs");
    assert!(status.success());
}

#[test]
fn a_tree_moves_through_ssh_without_a_daemon_of_ours() {
    if !Path::new(SSHD).exists() {
        return println!("skipped: {SSHD} is not installed (apt-get install openssh-server)");
    }
    let scratch = Scratch(PathBuf::from(format!("/var/tmp/godwit-test-ssh-{}", leftover::process_name())));
    std::fs::create_dir_all(&scratch.0).expect("a directory in /var/tmp");
    let options =
        Options { executable: Some(PathBuf::from(GODWIT)), shared: vec![scratch.0.clone()], ..Options::default() };
    let pair = match Pair::new(&options) {
        Ok(pair) => pair,
        Err(godwit_testbed::Error::Refused(reason)) => return println!("skipped: {reason}"),
        Err(error) => panic!("{error}"),
    };
    let address = pair.destination.address().to_string();
    configure(&scratch.0, &address);
    // sshd wants its empty directory; a host has its /run to itself.
    let status = pair.destination.command("/bin/mkdir").args(["-p", "/run/sshd"]).status().expect("mkdir runs");
    assert!(status.success());
    let log = std::fs::File::create(scratch.0.join("sshd.log")).expect("writable");
    let sshd = pair.destination.command(SSHD).arg("-D").arg("-e").arg("-f").arg(scratch.0.join("sshd_config"));
    let _server = Server(sshd.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("sshd runs"));
    let listening = format!(":{PORT:04X} 00000000:0000 0A");
    let table = format!("/proc/{}/net/tcp", pair.destination.init_pid());
    await_that("sshd listens", || std::fs::read_to_string(&table).unwrap_or_default().contains(&listening));

    // Hosts count alike: let the source be the one that has already run something.
    let advance = "echo 5000 > /proc/sys/kernel/ns_last_pid";
    assert!(pair.source.command("/bin/sh").args(["-c", advance]).status().expect("sh runs").success());
    let count = scratch.0.join("count");
    let script = format!("exec >> {}; n=0; while :; do n=$((n+1)); echo $n; sleep 0.02; done", count.display());
    let pid = pair.source.command("/bin/sh").args(["-c", &script]).detach().expect("the counter").to_string();
    await_that("the counter counts", || numbers(&count).len() > 5);

    let path = format!("{}:/usr/bin:/bin", scratch.0.join("bin").display());
    let destination = format!("ssh://root@{address}:{PORT}");
    let there = pair.source.command(GODWIT).env("PATH", &path);
    let refused = there.args(["migrate", &pid, &destination, "--remote-program", "/nowhere/godwit"]);
    let refused = refused.output().expect("godwit runs");
    assert!(!refused.status.success(), "there is no such program: {refused:?}");
    assert!(alive(&pair.source, &pid), "a refused move leaves the process where it is");

    let there = pair.source.command(GODWIT).env("PATH", &path);
    let moved = there.args(["migrate", &pid, &destination, "--remote-program", GODWIT, "--json"]);
    let moved = moved.output().expect("godwit runs");
    assert!(moved.status.success(), "{moved:?}; sshd: {:?}", std::fs::read_to_string(scratch.0.join("sshd.log")));
    assert!(!alive(&pair.source, &pid) && alive(&pair.destination, &pid), "it is at the destination alone");
    let so_far = numbers(&count).len();
    await_that("it counts on, with its ssh gone", || numbers(&count).len() > so_far + 20);
    let all = numbers(&count);
    assert!(all.iter().enumerate().all(|(index, number)| *number == index as u64 + 1), "{all:?}");
}
