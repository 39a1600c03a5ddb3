//! Which open descriptions of a tree the user has decided about. A choice is about the description: whoever in the tree holds
//! it, under whatever number, gets what was chosen.
use crate::capture::Decision;
use crate::failure::{About, Result};
use crate::look::Look;
use crate::resource::edge::Choice;
use godwit_image::{Code, Refusal, Subject};
use godwit_linux::kcmp::{self, Object};
use godwit_linux::pidfd::PidFd;
use std::cmp::Ordering;
use std::os::fd::AsRawFd;

/// The decisions, found in the tree.
#[derive(Debug, Default)]
pub(crate) struct Edges {
    chosen: Vec<(Look, Decision)>,
}

impl Edges {
    /// Finds the descriptors that decisions name in a tree, whose root comes first.
    ///
    /// # Errors
    /// GW1501: one does not exist in the tree, or two decisions about one description differ.
    pub(crate) fn find(tree: &[i32], decisions: &[Decision]) -> Result<Edges> {
        let root = tree.first().copied().unwrap_or(0);
        let mut edges = Edges::default();
        for decision in decisions {
            let pid = decision.pid.unwrap_or(root);
            let number = decision.descriptor;
            let usage = |cause: String| {
                Refusal::new(
                    Code::USAGE,
                    Subject::Object(format!("--edge {}={}", decision.name(), decision.choice)),
                    cause,
                )
            };
            if !tree.contains(&pid) {
                return Err(usage(format!("process {pid} is not in the tree of process {root}")));
            }
            let process = PidFd::open_thread(pid).map_err(|error| usage(format!("process {pid}: {error}")))?;
            let look = Look::descriptor(&process, number)?
                .ok_or_else(|| usage(format!("process {pid} has no descriptor {number}")))?;
            if let Some(other) = edges.same(&look)?.filter(|other| other.choice != decision.choice) {
                let cause = format!(
                    "it is the same open description as {}, for which {} was chosen",
                    other.name(),
                    other.choice
                );
                return Err(usage(cause).choice("choose the same for both, or for one of them only"));
            }
            edges.chosen.push((look, decision.clone()));
        }
        Ok(edges)
    }

    /// Whether nothing was decided.
    pub(crate) fn is_empty(&self) -> bool {
        self.chosen.is_empty()
    }

    fn same(&self, look: &Look) -> Result<Option<&Decision>> {
        let own = std::process::id() as i32;
        let alike = self.chosen.iter().filter(|(other, _)| (other.device, other.inode) == (look.device, look.inode));
        for (other, decision) in alike {
            let files = Object::File(other.file.as_raw_fd(), look.file.as_raw_fd());
            if kcmp::kcmp(own, own, files).about(|| look.subject())? == Ordering::Equal {
                return Ok(Some(decision));
            }
        }
        Ok(None)
    }

    /// What was decided about a description.
    ///
    /// # Errors
    /// kcmp fails.
    pub(crate) fn choice(&self, look: &Look) -> Result<Option<&Choice>> {
        match look.number() {
            Some(_) => Ok(self.same(look)?.map(|decision| &decision.choice)),
            None => Ok(None),
        }
    }

    /// The number by which the user named a description: what it inherits has the same.
    pub(crate) fn number(&self, look: &Look) -> Result<Option<i32>> {
        Ok(self.same(look)?.map(|decision| decision.descriptor))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decision(descriptor: i32, choice: Choice) -> Decision {
        Decision { pid: None, descriptor, choice }
    }

    #[test]
    fn a_choice_is_about_the_description_and_not_about_the_number() {
        let own = std::process::id() as i32;
        let (reader, writer) = std::io::pipe().unwrap();
        let again = writer.try_clone().unwrap();
        let [reader, writer, again] = [reader.as_raw_fd(), writer.as_raw_fd(), again.as_raw_fd()];
        let look = |number| Look::descriptor(&PidFd::open(own).unwrap(), number).unwrap().unwrap();
        let edges = Edges::find(&[own], &[decision(writer, Choice::Null)]).unwrap();
        assert_eq!(edges.choice(&look(again)).unwrap(), Some(&Choice::Null));
        assert_eq!(edges.number(&look(again)).unwrap(), Some(writer));
        assert_eq!(edges.choice(&look(reader)).unwrap(), None, "the other end is another description of the same pipe");
        Edges::find(&[own], &[decision(writer, Choice::Null), decision(again, Choice::Null)]).unwrap();
        let differ =
            Edges::find(&[own], &[decision(writer, Choice::Null), decision(again, Choice::Close)]).unwrap_err();
        assert!(differ.code == Code::USAGE && differ.cause.contains("same open description"), "{differ}");
        let missing = Edges::find(&[own], &[decision(i32::MAX, Choice::Null)]).unwrap_err();
        assert!(missing.cause.contains("has no descriptor"), "{missing}");
    }
}
