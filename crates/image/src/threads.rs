//! How the threads of a task are written: of each only the fields in which it differs from the one before it. Most threads of a
//! process have nearly everything in common, and what is not written need not be sent, checked and read while the process is down.
//!
//! A field that is not there has the value of the thread before; of the first thread all are there but those with a default. To
//! people, and to whoever reads JSON, every thread is shown whole.
use crate::credentials::Credentials;
use crate::id::{ObjectId, Pid};
use crate::signal::{AlternateStack, Queued};
use crate::task::{Scheduling, Thread, Wait};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use serde::de::{Error, SeqAccess, Visitor};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_bytes::{ByteBuf, Bytes};

/// Bytes that all threads of a task may have from the ones before them, so that few bytes cannot become many.
const REPEATED_BYTES_MAX: usize = 256 << 20;

/// A field that was there, whatever its value.
#[allow(clippy::unnecessary_wraps, reason = "serde asks for the field's type")]
fn there<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// A thread and the one before it.
struct Difference<'t>(&'t Thread, Option<&'t Thread>);

macro_rules! fields {
    (plain { $($plain:ident: $type:ty,)* } bytes { $($bytes:ident,)* } defaults { $($default:ident: $of:ty,)* }) => {
        impl Serialize for Difference<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let Difference(thread, before) = self;
                let mut map = serializer.serialize_map(None)?;
                map.serialize_entry("tid", &thread.tid)?;
                $(if before.is_none_or(|before| before.$plain != thread.$plain) {
                    map.serialize_entry(stringify!($plain), &thread.$plain)?;
                })*
                $(if before.is_none_or(|before| before.$bytes != thread.$bytes) {
                    map.serialize_entry(stringify!($bytes), Bytes::new(&thread.$bytes))?;
                })*
                $(if before.is_none_or(|before| before.$default != thread.$default) {
                    map.serialize_entry(stringify!($default), &thread.$default)?;
                })*
                map.end()
            }
        }

        /// What is there of a thread.
        #[derive(Deserialize)]
        struct Found {
            tid: Pid,
            $(#[serde(default, deserialize_with = "there")] $plain: Option<$type>,)*
            $(#[serde(default, deserialize_with = "there")] $bytes: Option<ByteBuf>,)*
            $(#[serde(default, deserialize_with = "there")] $default: Option<$of>,)*
        }

        impl Found {
            fn behind<E: Error>(self, before: Option<&Thread>) -> Result<Thread, E> {
                Ok(Thread {
                    tid: self.tid,
                    $($plain: match (self.$plain, before) {
                        (Some(found), _) => found,
                        (None, Some(before)) => before.$plain.clone(),
                        (None, None) => return Err(E::missing_field(stringify!($plain))),
                    },)*
                    $($bytes: match (self.$bytes, before) {
                        (Some(found), _) => found.into_vec(),
                        (None, Some(before)) => before.$bytes.clone(),
                        (None, None) => return Err(E::missing_field(stringify!($bytes))),
                    },)*
                    $($default: match (self.$default, before) {
                        (Some(found), _) => found,
                        (None, Some(before)) => before.$default.clone(),
                        (None, None) => Default::default(),
                    },)*
                })
            }
        }
    };
}

fields! {
    plain {
        registers: Vec<u64>,
        signal_mask: u64,
        pending: Vec<Queued>,
        alternate_stack: AlternateStack,
        clear_child_tid: u64,
        robust_list: (u64, u64),
        restartable_sequence: (u64, u32, u32, u32),
        credentials: Credentials,
        files: Option<ObjectId>,
        filesystem: Option<ObjectId>,
        parent_death_signal: i32,
        timer_slack_ns: u64,
        personality: u32,
        scheduling: Scheduling,
        io_priority: i32,
        timestamp_counter_mode: i32,
        dead: bool,
        note: String,
    }
    bytes { name, extended_state, affinity, }
    defaults {
        machine_check: Option<i32>,
        speculation: [i32; 3],
        user_dispatch: Option<[u64; 4]>,
        exit_status: i32,
        wait: Option<Wait>,
    }
}

/// Bytes that a thread can hand on.
fn weight(thread: &Thread) -> usize {
    let filters = thread.credentials.seccomp_filters.iter().map(|filter| filter.program.len() + 64);
    let pending = thread.pending.iter().map(|queued| queued.information.len() + 64);
    let fixed = size_of::<Thread>() + thread.registers.len() * 8 + thread.credentials.groups.len() * 4;
    let bytes = thread.name.len() + thread.extended_state.len() + thread.affinity.len() + thread.note.len();
    fixed + bytes + filters.sum::<usize>() + pending.sum::<usize>()
}

pub(crate) fn serialize<S: Serializer>(threads: &[Thread], serializer: S) -> Result<S::Ok, S::Error> {
    if serializer.is_human_readable() {
        return threads.serialize(serializer);
    }
    let mut sequence = serializer.serialize_seq(Some(threads.len()))?;
    let mut before = None;
    for thread in threads {
        sequence.serialize_element(&Difference(thread, before))?;
        before = Some(thread);
    }
    sequence.end()
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Thread>, D::Error> {
    struct Threads;
    impl<'de> Visitor<'de> for Threads {
        type Value = Vec<Thread>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("threads")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Vec<Thread>, A::Error> {
            let (mut threads, mut repeated): (Vec<Thread>, usize) = (Vec::new(), 0);
            while let Some(found) = sequence.next_element::<Found>()? {
                repeated = repeated.saturating_add(threads.last().map_or(0, weight));
                if repeated > REPEATED_BYTES_MAX {
                    return Err(A::Error::custom("too many threads that have too much in common"));
                }
                let thread = found.behind(threads.last())?;
                threads.push(thread);
            }
            Ok(threads)
        }
    }
    deserializer.deserialize_seq(Threads)
}

#[cfg(test)]
mod tests {
    use crate::task::Thread;
    use crate::{ObjectId, Pid, codec};
    use alloc::vec::Vec;
    use serde::{Deserialize, Serialize};

    #[derive(Serialize, Deserialize)]
    struct Holder {
        #[serde(with = "super")]
        threads: Vec<Thread>,
    }

    /// As threads were written before.
    #[derive(Serialize)]
    struct Whole<'t> {
        threads: &'t [Thread],
    }

    fn thread(tid: i32) -> Thread {
        let holder = r#"{"tid":1,"name":[97],"registers":[1,2],"extended_state":[3],"signal_mask":4,"pending":[],
            "alternate_stack":{"address":0,"flags":2,"size":0},"clear_child_tid":5,"robust_list":[6,24],
            "restartable_sequence":[0,0,0,0],"credentials":null,"files":1,"filesystem":null,"parent_death_signal":0,
            "timer_slack_ns":50000,"personality":0,"scheduling":null,"affinity":[],"io_priority":0,
            "timestamp_counter_mode":1,"dead":false,"note":"in a call"}"#;
        let mut value: serde_json::Value = serde_json::from_str(holder).unwrap();
        value["credentials"] = serde_json::to_value(crate::credentials::Credentials::default()).unwrap();
        value["scheduling"] = serde_json::to_value(crate::task::Scheduling::default()).unwrap();
        Thread { tid: Pid(tid), ..serde_json::from_value(value).unwrap() }
    }

    fn there_and_back(threads: Vec<Thread>) -> usize {
        let holder = Holder { threads };
        let bytes = codec::encode(&holder).unwrap();
        assert_eq!(codec::decode::<Holder>(&bytes).unwrap().threads, holder.threads);
        let readable = serde_json::to_value(&holder).unwrap();
        assert_eq!(readable["threads"][holder.threads.len() - 1]["timer_slack_ns"], 50_000);
        bytes.len()
    }

    #[test]
    fn threads_come_back_whatever_they_have_in_common() {
        let one = there_and_back(alloc::vec![thread(1)]);
        let alike = there_and_back((1..=100).map(thread).collect());
        assert!(alike < one + 100 * 10, "{alike} bytes of 100 threads, {one} of one");
        // Each way from something to nothing and back, of values that are options, too.
        let other = Thread {
            files: None,
            filesystem: Some(ObjectId(3)),
            machine_check: Some(1),
            user_dispatch: Some([1, 2, 3, 4]),
            name: Vec::new(),
            dead: true,
            ..thread(2)
        };
        there_and_back(alloc::vec![thread(1), other.clone(), thread(3), other.clone(), other]);
    }

    #[test]
    fn what_was_written_whole_is_read() {
        let threads: Vec<Thread> = (1..4).map(thread).collect();
        let bytes = codec::encode(&Whole { threads: &threads }).unwrap();
        assert_eq!(codec::decode::<Holder>(&bytes).unwrap().threads, threads);
    }

    #[test]
    fn little_does_not_become_much() {
        let large = Thread { extended_state: alloc::vec![1; 1 << 20], ..thread(1) };
        let threads: Vec<Thread> = (1..400).map(|tid| Thread { tid: Pid(tid), ..large.clone() }).collect();
        let bytes = codec::encode(&Holder { threads }).unwrap();
        assert!(bytes.len() < 2 << 20);
        let error = codec::decode::<Holder>(&bytes).map(|_| ()).unwrap_err();
        assert!(error.0.contains("in common"), "{error}");
        // The first one has nobody to have anything from.
        let nobody = ciborium::Value::serialized(&serde_json::json!({"threads": [{"tid": 1}]})).unwrap();
        let error = codec::decode::<Holder>(&codec::encode(&nobody).unwrap()).map(|_| ()).unwrap_err();
        assert!(error.0.contains("registers"), "{error}");
    }
}
