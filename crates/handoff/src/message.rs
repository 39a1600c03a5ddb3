//! What the two machines say to each other.

use alloc::string::String;
use alloc::vec::Vec;

use crate::action::Totals;
use crate::bytes::{Malformed, Reader, put_bytes, put_text};
use crate::capability::Capabilities;
use crate::identity::{BootId, MigrationId, Versions};
use crate::reason::{Opaque, Reason, decode_list, encode_list};

/// What the destination's journal says about a migration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The process is the destination's, and was resumed there.
    Committed,
    /// The destination will never resume it.
    Aborted,
    /// The destination has no journal entry for it: it cannot say.
    Unknown,
    /// It was committed, but its tasks are gone and nobody can say whether they ran.
    Lost,
    /// The process is the destination's and runs there, and needs pages that the source still has.
    Owing,
}

/// One message. `→` from the source to the destination, `←` the other way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Message {
    /// → Who I am and what I speak. The first message of a hand-off.
    Hello {
        /// Protocol versions that the source speaks.
        versions: Versions,
        /// The source host's boot.
        boot: BootId,
        /// What the source can do.
        capabilities: Capabilities,
    },
    /// ← Which version it will be and what I can do.
    HelloAnswer {
        /// The newest version that both speak.
        version: u16,
        /// The destination host's boot.
        boot: BootId,
        /// What the destination can do.
        capabilities: Capabilities,
    },
    /// → What the process needs. Nothing is frozen yet.
    Offer {
        /// Only examine and answer; no process will come.
        dry_run: bool,
        /// The name of a row of the strategy table.
        strategy: String,
        /// The drivers' own description of the needs.
        requirements: Vec<u8>,
    },
    /// ← All needs can be met.
    Accept {
        /// What will not be quite as it was, in the drivers' own words.
        changes: Vec<Opaque>,
    },
    /// ← They cannot, each with its reason.
    Refuse {
        /// The drivers' own refusals.
        refusals: Vec<Opaque>,
    },
    /// → Everything is on its way: compare.
    AllSent(Totals),
    /// ← The tasks are complete and stopped in a way that outlives the engine; they can be resumed.
    Ready {
        /// The number of the tree's root for those who look from the destination's host; 0: it cannot be told.
        root: u32,
    },
    /// ↔ No commit was (or will be) made; I have undone or am undoing. From the destination this is final: it will never resume.
    Abort(Reason),
    /// → The process is yours.
    Commit,
    /// ← It runs here.
    Resumed,
    /// → What does your journal say? (Layout fixed for all protocol versions.)
    Query,
    /// ← This. (Layout fixed for all protocol versions.)
    Answer(Verdict),
    /// → I shall not ask again: you may forget this migration.
    Goodbye,
    /// ↔ I am alive.
    Heartbeat,
    /// → First frame of an additional stream: it carries this lane's state and pages. For the drivers; the machines ignore it.
    Lane {
        /// Number of the lane, counted from one; the stream of the messages is lane zero.
        number: u16,
    },
    /// ← It runs here, and needs pages that you still have. Until [`Message::AllHeld`] your tasks must stay.
    Owing,
    /// ← Every page is here: your tasks are not needed any more.
    AllHeld,
}

/// A message with the migration that it is about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Packet {
    /// Which migration.
    pub migration: MigrationId,
    /// What is said.
    pub message: Message,
}

const REQUIREMENTS_LIMIT: usize = 1 << 20;

impl Message {
    /// The frame type of this message.
    pub fn code(&self) -> u8 {
        match self {
            Message::Hello { .. } => 1,
            Message::HelloAnswer { .. } => 2,
            Message::Offer { .. } => 3,
            Message::Accept { .. } => 4,
            Message::Refuse { .. } => 5,
            Message::AllSent(_) => 6,
            Message::Ready { .. } => 7,
            Message::Abort(_) => 8,
            Message::Commit => 9,
            Message::Resumed => 10,
            Message::Query => 11,
            Message::Answer(_) => 12,
            Message::Goodbye => 13,
            Message::Heartbeat => 14,
            Message::Lane { .. } => 15,
            Message::Owing => 16,
            Message::AllHeld => 17,
        }
    }
}

impl Packet {
    /// Appends the payload of this packet's frame.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend(self.migration.0);
        match &self.message {
            Message::Hello { versions, boot, capabilities } => {
                out.extend(versions.oldest.to_le_bytes());
                out.extend(versions.newest.to_le_bytes());
                out.extend(boot.0);
                capabilities.encode(out);
            }
            Message::HelloAnswer { version, boot, capabilities } => {
                out.extend(version.to_le_bytes());
                out.extend(boot.0);
                capabilities.encode(out);
            }
            Message::Offer { dry_run, strategy, requirements } => {
                out.push(u8::from(*dry_run));
                put_text(out, strategy);
                put_bytes(out, requirements);
            }
            Message::Accept { changes: said } | Message::Refuse { refusals: said } => encode_list(said, out),
            Message::AllSent(totals) => {
                for number in [totals.pages, totals.bytes, totals.checksum] {
                    out.extend(number.to_le_bytes());
                }
            }
            Message::Abort(reason) => reason.encode(out),
            Message::Answer(verdict) => out.push(match verdict {
                Verdict::Committed => 1,
                Verdict::Aborted => 2,
                Verdict::Unknown => 3,
                Verdict::Lost => 4,
                Verdict::Owing => 5,
            }),
            Message::Lane { number } => out.extend(number.to_le_bytes()),
            Message::Ready { root } => out.extend(root.to_le_bytes()),
            Message::Commit | Message::Resumed => {}
            Message::Query | Message::Goodbye | Message::Heartbeat | Message::Owing | Message::AllHeld => {}
        }
    }

    /// Reads the payload of a frame of type `code`.
    pub(crate) fn decode(code: u8, payload: &[u8]) -> Result<Packet, Malformed> {
        let mut reader = Reader::new(payload);
        let migration = MigrationId(reader.array()?);
        let message = match code {
            1 => Message::Hello {
                versions: Versions { oldest: reader.u16()?, newest: reader.u16()? },
                boot: BootId(reader.array()?),
                capabilities: Capabilities::decode(&mut reader)?,
            },
            2 => Message::HelloAnswer {
                version: reader.u16()?,
                boot: BootId(reader.array()?),
                capabilities: Capabilities::decode(&mut reader)?,
            },
            3 => Message::Offer {
                dry_run: reader.boolean("dry run")?,
                strategy: reader.text("strategy")?,
                requirements: reader.bytes(REQUIREMENTS_LIMIT)?,
            },
            4 => Message::Accept { changes: decode_list(&mut reader)? },
            5 => Message::Refuse { refusals: decode_list(&mut reader)? },
            6 => Message::AllSent(Totals { pages: reader.u64()?, bytes: reader.u64()?, checksum: reader.u64()? }),
            7 => Message::Ready { root: reader.u32()? },
            8 => Message::Abort(Reason::decode(&mut reader)?),
            9 => Message::Commit,
            10 => Message::Resumed,
            11 => Message::Query,
            12 => Message::Answer(match reader.u8()? {
                1 => Verdict::Committed,
                2 => Verdict::Aborted,
                3 => Verdict::Unknown,
                4 => Verdict::Lost,
                5 => Verdict::Owing,
                _ => return Err(Malformed::BadValue("verdict")),
            }),
            13 => Message::Goodbye,
            14 => Message::Heartbeat,
            15 => Message::Lane { number: reader.u16()? },
            16 => Message::Owing,
            17 => Message::AllHeld,
            other => return Err(Malformed::UnknownType(other)),
        };
        reader.end()?;
        Ok(Packet { migration, message })
    }
}
