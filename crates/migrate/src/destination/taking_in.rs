//! What comes in: messages for the machine, the state, and pages, which the tree's own root reads where its memory waits for them.
use super::Driver;
use crate::report::{self, name_of};
use crate::stream::{Arrival, Broken};
use godwit_handoff::{Deed, Event, Malformed};
use godwit_image::memory::PAGE_BYTES;
use godwit_image::page_set::{PageSet, Run};
use godwit_image::{Code, ObjectId, Refusal, Subject};
use godwit_linux::{file, socket};
use std::io;
use std::os::fd::AsRawFd;

const EINTR: i32 = 4;
const EAGAIN: i32 = 11;
const EFAULT: i32 = 14;

impl Driver<'_> {
    /// Takes in what is there, until the machine wants something.
    pub(super) fn listen(&mut self) {
        while let Some(stream) = &mut self.stream {
            let busy = stream.socket().and_then(socket::incoming_processor);
            let result = match stream.next() {
                Ok(Some(Arrival::Packet(packet))) => {
                    self.observe("received", name_of(&packet.message));
                    self.feed_received(packet);
                    if !self.queue.is_empty() {
                        return;
                    }
                    continue;
                }
                Ok(Some(_)) if self.receive_failed => continue,
                Ok(Some(Arrival::State(bytes))) => {
                    let moved = (0, bytes.len() as u64);
                    let result = self.build.state(bytes, busy).map(|()| moved);
                    self.begin_pages().and(result)
                }
                Ok(Some(Arrival::Waiting(owner, ranges))) => {
                    let ranges = ranges.to_vec();
                    match self.receive_directly(owner, &ranges).transpose() {
                        None => return,
                        Some(moved) => moved,
                    }
                }
                Ok(Some(Arrival::Pages(owner, ranges, bytes))) if self.fetch.active => {
                    let moved = (0, bytes.len() as u64);
                    self.fetch.fill(owner, ranges, bytes).map(|wanted| self.want(&wanted)).map(|()| moved)
                }
                Ok(Some(Arrival::Zeros(owner, ranges))) if self.fetch.active => {
                    let ranges = ranges.to_vec();
                    self.place_owed(owner, &ranges, None).map(|()| (0, 0))
                }
                Ok(Some(Arrival::Stored)) if self.fetch.active => Ok(self.announce_store()),
                Ok(Some(Arrival::Pages(owner, ranges, bytes))) => {
                    let moved = (bytes.len() as u64 / godwit_image::memory::PAGE_BYTES, bytes.len() as u64);
                    self.build.pages(owner, ranges, bytes).map(|()| moved)
                }
                Ok(Some(Arrival::Held(stage, owner, ranges))) => {
                    self.build.held(stage, owner, ranges).map(|pages| (pages, 0))
                }
                Ok(Some(Arrival::Owed(stage, ranges))) => {
                    let ranges = ranges.to_vec();
                    self.give_back(stage, &ranges).map(|()| (0, 0))
                }
                Ok(Some(Arrival::Zeros(owner, ranges))) => self.build.zeros(owner, ranges).map(|pages| (pages, 0)),
                Ok(Some(_)) => return self.lose_link(&Broken::Malformed(Malformed::BadValue("direction"))),
                Ok(None) => return,
                Err(error) => return self.lose_link(&error),
            };
            match result {
                Ok((pages, bytes)) => self.feed(Event::Moved { pages, bytes }),
                Err(refusal) if self.fetch.active => return self.cannot_fetch(&refusal),
                Err(refusal) => self.cannot_receive(&refusal),
            }
            self.tell();
            self.fetch_some();
            self.listen_for_faults();
            let is_due = self.machine.poll_timeout().is_some_and(|due| self.clock.now() >= due);
            // However fast it comes, the other side must hear that we live.
            if is_due || !self.queue.is_empty() {
                return;
            }
        }
    }

    fn cannot_receive(&mut self, refusal: &Refusal) {
        self.receive_failed = true;
        self.build.discard();
        if let Some(stream) = &mut self.stream {
            stream.leave_nothing();
        }
        self.feed(Event::Failed { deed: Deed::Receive, refusal: report::opaque(refusal) });
    }

    /// Gives back pages that have come and are not true any more, and says so: the source waits for that, and counts the frames.
    fn give_back(&mut self, stage: ObjectId, ranges: &[(u64, usize)]) -> Result<(), Refusal> {
        self.build.stale(stage.0, ranges)?;
        let first = ranges.first().map(|(start, bytes)| Run { start: *start, end: start + *bytes as u64 });
        let first: PageSet = first.into_iter().collect();
        let said = self.stream.as_mut().map_or(Ok(()), |stream| {
            stream.tell_owed(&[(stage, first)], false)?;
            stream.flush()
        });
        if let Err(error) = said {
            self.lose_link(&error);
        }
        Ok(())
    }

    /// The loop takes in whatever comes. Where that is much a task reads most of it itself, or a thread reads ahead, which costs two
    /// wake-ups of a processor at rest.
    pub(super) fn receive(&mut self) -> Result<(), Refusal> {
        if self.build.takes_unseen() && self.stream.as_ref().is_some_and(|stream| stream.socket().is_some()) {
            return Ok(());
        }
        self.read_ahead()
    }

    fn read_ahead(&mut self) -> Result<(), Refusal> {
        let Some(stream) = self.stream.as_mut().filter(|_| self.build.is_large) else { return Ok(()) };
        let subject = || Subject::Object("intake".to_owned());
        stream.read_ahead().map_err(|error| Refusal::new(Code::KERNEL_CALL, subject(), error.to_string()))
    }

    /// When the state has come: what was prepared either fits it or not.
    fn begin_pages(&mut self) -> Result<(), Refusal> {
        match (self.build.unseen(), &mut self.stream) {
            (Some(Some((owner, pages))), Some(stream)) => {
                stream.leave(owner, pages);
                Ok(())
            }
            (Some(None), Some(_)) => self.read_ahead(),
            _ => Ok(()),
        }
    }

    /// The task reads what waits in the socket: pages and bytes that came, `None` when nothing did for a while.
    fn receive_directly(&mut self, owner: ObjectId, ranges: &[(u64, usize)]) -> Result<Option<(u64, u64)>, Refusal> {
        let Some(stream) = &self.stream else { return Ok(None) };
        let subject = || Subject::Object("link".to_owned());
        let failed = |error: godwit_linux::Errno| Refusal::new(Code::KERNEL_CALL, subject(), error.to_string());
        let Some(socket) = stream.socket() else { return Err(Refusal::new(Code::KERNEL_CALL, subject(), "no socket")) };
        // Nobody else reads or writes meanwhile.
        file::do_wait(socket).map_err(failed)?;
        let received = self.build.receive(owner, ranges, socket.as_raw_fd(), socket::incoming_processor(socket));
        file::do_not_wait(socket).map_err(failed)?;
        match received? {
            Ok(0) => self.lose_link(&Broken::Closed),
            Ok(count) => {
                if let Some(stream) = &mut self.stream {
                    stream.took(count);
                }
                let before = (self.build.bytes_done - count as u64) / PAGE_BYTES;
                return Ok(Some((self.build.bytes_done / PAGE_BYTES - before, count as u64)));
            }
            Err(error) if matches!(error.number, EAGAIN | EINTR) => {}
            Err(error) if error.number == EFAULT => {
                let cause = "its memory, which was made before, cannot be written";
                return Err(Refusal::new(Code::RESTORE_FAILED, Subject::Object(format!("object {owner}")), cause));
            }
            Err(error) => self.lose_link(&Broken::Failed(io::Error::from_raw_os_error(error.number))),
        }
        Ok(None)
    }
}
