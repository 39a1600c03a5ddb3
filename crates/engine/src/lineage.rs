//! How each process of a tree can be born so that it ends up with its parent, its session and its number.
//!
//! A session is inherited at birth and can be left but never entered. So a process whose session is not its parent's was
//! born by somebody else, or before its parent left that session; the plan finds a way to the same result:
//!
//! ```text
//!   Fork       by its parent
//!   EarlyFork  by its parent, before that makes a session of its own
//!   Errand     by a process that the session's leader forks for it and that ends at once; the parent adopts it
//!   Zombie     by the session's leader, which is a zombie in the image; the parent adopts it when that ends
//!   StandIn    by a process that takes the number of the session's dead leader; the parent adopts it when that ends
//! ```
//!
//! A process is adopted by the nearest ancestor that is a subreaper: the restorer makes the wanted one so for the moment.
use godwit_image::task::{State, Task};
use godwit_image::tree::Tree;
use godwit_image::{Code, Pid, Refusal, Subject};
use std::collections::BTreeMap;

/// What the plan needs to know of a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Member {
    /// Number.
    pub pid: Pid,
    /// Parent's number; ignored for the root.
    pub parent: Pid,
    /// Session.
    pub session: Pid,
    /// Dead and not waited for.
    pub zombie: bool,
}

/// What the plan needs to know of an image.
pub fn members(tree: &Tree) -> Vec<Member> {
    let member = |task: &Task| Member {
        pid: task.pid,
        parent: task.parent,
        session: task.session,
        zombie: matches!(task.state, State::Zombie(_)),
    };
    tree.tasks.iter().map(member).collect()
}

/// How a process is born.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Birth {
    /// The root: forked by the restorer, or by the stand-in for its session's leader.
    Root,
    /// Forked by its parent, when that has its final session.
    Fork,
    /// Forked by its parent, before that makes a session of its own.
    EarlyFork,
    /// Forked by a process that this session leader forks for it.
    Errand(Pid),
    /// Forked by this session leader, which is a zombie in the image.
    Zombie(Pid),
    /// Forked by the stand-in for this dead session leader.
    StandIn(Pid),
}

/// The plan for a tree.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Lineage {
    births: BTreeMap<Pid, Birth>,
    /// Dead session leaders and the process under which their stand-ins are born.
    stand_ins: BTreeMap<Pid, Pid>,
}

impl Lineage {
    /// Makes the plan. `members`: the root first, parents before children.
    ///
    /// # Errors
    /// GW1104: a shape that no order of births gives.
    pub fn plan(members: &[Member]) -> Result<Lineage, Refusal> {
        let Some(root) = members.first() else { return Ok(Lineage::default()) };
        let by_pid: BTreeMap<Pid, Member> = members.iter().map(|member| (member.pid, *member)).collect();
        let wanted = wanted(members, &by_pid);
        let mut lineage = Lineage::default();
        // The session that each process is born in.
        let mut born: BTreeMap<Pid, Pid> = BTreeMap::new();
        lineage.births.insert(root.pid, Birth::Root);
        if root.session != root.pid {
            born.insert(root.pid, root.session);
        }
        for member in &members[1..] {
            let Some(parent) = by_pid.get(&member.parent) else { return Err(shape(member, "its parent is not in it")) };
            let session = wanted.get(&member.pid).copied().unwrap_or(parent.session);
            let birth = if session == parent.session {
                Birth::Fork
            } else if parent.pid == parent.session && born.get(&parent.pid) == Some(&session) {
                Birth::EarlyFork
            } else {
                lineage.away(member, parent, session, &by_pid)?
            };
            born.insert(member.pid, session);
            lineage.births.insert(member.pid, birth);
        }
        Ok(lineage)
    }

    /// A birth by somebody else than the parent.
    fn away(
        &mut self,
        member: &Member,
        parent: &Member,
        session: Pid,
        by_pid: &BTreeMap<Pid, Member>,
    ) -> Result<Birth, Refusal> {
        if session.0 <= 0 {
            return Err(shape(member, "its session's leader is outside of its PID namespace"));
        }
        match by_pid.get(&session) {
            Some(leader) if !descends(leader.pid, parent.pid, by_pid) => {
                Err(shape(member, &format!("the leader of its session {session} does not descend from its parent")))
            }
            Some(leader) if leader.zombie => Ok(Birth::Zombie(session)),
            Some(_) => Ok(Birth::Errand(session)),
            None => match *self.stand_ins.entry(session).or_insert(parent.pid) {
                under if under == parent.pid => Ok(Birth::StandIn(session)),
                _ => Err(shape(
                    member,
                    &format!("processes of session {session}, whose leader has ended, have several parents"),
                )),
            },
        }
    }

    /// How a process is born.
    pub fn birth(&self, pid: Pid) -> Option<Birth> {
        self.births.get(&pid).copied()
    }

    /// Whether a process starts as a copy of its parent as it is in the image.
    pub fn is_fork(&self, pid: Pid) -> bool {
        self.birth(pid) == Some(Birth::Fork)
    }

    /// The processes born in a way, in the image's order of numbers.
    pub fn born(&self, birth: impl Fn(Birth) -> bool) -> impl Iterator<Item = (Pid, Birth)> {
        self.births.iter().filter(move |(_, found)| birth(**found)).map(|(pid, found)| (*pid, *found))
    }

    /// Dead session leaders (their numbers) and the processes under which their stand-ins are born.
    pub fn stand_ins(&self) -> impl Iterator<Item = (Pid, Pid)> {
        self.stand_ins.iter().map(|(number, parent)| (*number, *parent))
    }
}

/// The session in which each process has to be born; nothing for a leader to whom it does not matter.
fn wanted(members: &[Member], by_pid: &BTreeMap<Pid, Member>) -> BTreeMap<Pid, Pid> {
    let root = members.first().map(|root| root.session);
    let mut wanted: BTreeMap<Pid, Pid> = BTreeMap::new();
    // For a leader: the session of a child that can only come from before it became one.
    let mut before: BTreeMap<Pid, Pid> = BTreeMap::new();
    for member in members.iter().rev() {
        let session =
            if member.session == member.pid { before.get(&member.pid).copied() } else { Some(member.session) };
        let Some(session) = session else { continue };
        wanted.insert(member.pid, session);
        if session == member.parent {
            continue;
        }
        let from_above = match by_pid.get(&session) {
            Some(leader) => descends(member.parent, leader.pid, by_pid) && leader.pid != member.parent,
            None => Some(session) == root,
        };
        if from_above {
            before.entry(member.parent).or_insert(session);
        }
    }
    wanted
}

/// Whether `pid` is `ancestor` or descends from it.
fn descends(pid: Pid, ancestor: Pid, by_pid: &BTreeMap<Pid, Member>) -> bool {
    let mut at = Some(pid);
    // A tree of n processes has no longer way up.
    for _ in 0..=by_pid.len() {
        match at {
            Some(here) if here == ancestor => return true,
            Some(here) => at = by_pid.get(&here).map(|member| member.parent),
            None => return false,
        }
    }
    false
}

fn shape(member: &Member, cause: &str) -> Refusal {
    Refusal::new(Code::UNSUPPORTED, Subject::Process(member.pid.0), cause)
        .choice("move a larger part of the tree")
        .choice("start the program with setsid")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// pid, parent, session; a negative pid is a zombie.
    fn plan(rows: &[(i32, i32, i32)]) -> Result<Lineage, Refusal> {
        let members: Vec<Member> = rows
            .iter()
            .map(|(pid, parent, session)| Member {
                pid: Pid(pid.abs()),
                parent: Pid(*parent),
                session: Pid(*session),
                zombie: *pid < 0,
            })
            .collect();
        Lineage::plan(&members)
    }

    fn births(rows: &[(i32, i32, i32)]) -> Vec<Birth> {
        let lineage = plan(rows).unwrap();
        rows[1..].iter().map(|(pid, ..)| lineage.birth(Pid(pid.abs())).unwrap()).collect()
    }

    #[test]
    fn plain_trees_are_forked() {
        assert_eq!(births(&[(10, 1, 10), (11, 10, 10), (12, 11, 12), (13, 12, 12)]), [Birth::Fork; 3]);
        assert_eq!(births(&[(10, 1, 5), (11, 10, 5)]), [Birth::Fork]);
    }

    #[test]
    fn children_from_before_setsid() {
        // 11 forked 12, then left the root's session.
        assert_eq!(births(&[(10, 1, 10), (11, 10, 11), (12, 11, 10)]), [Birth::Fork, Birth::EarlyFork]);
        // The same twice: 12 and 13 both made sessions after forking.
        let rows = [(10, 1, 10), (11, 10, 11), (12, 11, 12), (13, 12, 10)];
        assert_eq!(births(&rows), [Birth::Fork, Birth::EarlyFork, Birth::EarlyFork]);
    }

    #[test]
    fn dead_leaders_have_stand_ins() {
        let rows = [(10, 1, 10), (12, 10, 11), (13, 10, 11), (14, 12, 11)];
        assert_eq!(births(&rows), [Birth::StandIn(Pid(11)), Birth::StandIn(Pid(11)), Birth::Fork]);
        assert_eq!(plan(&rows).unwrap().stand_ins().collect::<Vec<_>>(), [(Pid(11), Pid(10))]);
    }

    #[test]
    fn living_and_unburied_leaders() {
        assert_eq!(births(&[(10, 1, 10), (11, 10, 11), (12, 10, 11)]), [Birth::Fork, Birth::Errand(Pid(11))]);
        assert_eq!(births(&[(10, 1, 10), (-11, 10, 11), (12, 10, 11)]), [Birth::Fork, Birth::Zombie(Pid(11))]);
    }

    #[test]
    fn impossible_shapes_are_refused() {
        // The leader descends from a sibling of the parent.
        plan(&[(10, 1, 10), (11, 10, 10), (12, 10, 12), (13, 11, 12)]).unwrap_err();
        // A dead leader's processes under two parents that cannot both have adopted from it.
        plan(&[(10, 1, 10), (11, 10, 10), (13, 10, 12), (14, 11, 12)]).unwrap_err();
        plan(&[(10, 1, 10), (11, 99, 10)]).unwrap_err();
    }
}
