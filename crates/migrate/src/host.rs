//! What this host says of itself to the other side, and numbers that must be unique.
use godwit_deterministic::Instant;
use godwit_handoff::{BootId, Capabilities, MigrationId, Value};
use godwit_image::host::HostFacts;
use godwit_image::{Code, Refusal, Subject, codec};
use std::io::Read;
use std::sync::OnceLock;

/// The key under which a host's facts travel.
const FACTS: &str = "host";
/// What a destination says that it can do: pages that have come it gives back when it is told that they are not true any more.
pub(crate) const STALE_PAGES: &str = "stale-pages";
/// And: what lies unread in pipes and sockets may follow when the tree runs.
pub(crate) const LATE_COMMUNICATION: &str = "late-communication";

/// Time since a driver began, on the machines' scale.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(std::time::Instant);

impl Clock {
    pub(crate) fn start() -> Clock {
        Clock(std::time::Instant::now())
    }

    pub(crate) fn now(self) -> Instant {
        Instant::from_nanoseconds(u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    /// How long until `due`.
    pub(crate) fn until(self, due: Instant) -> std::time::Duration {
        due.since(self.now()).into()
    }
}

/// A number that no other migration has.
///
/// # Errors
/// GW1502: no source of random numbers.
pub(crate) fn migration_id() -> Result<MigrationId, Refusal> {
    let mut id = [0; 16];
    std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut id)).map_err(|error| {
        Refusal::new(Code::ENVIRONMENT, Subject::Path("/dev/urandom".to_owned()), error.to_string())
    })?;
    Ok(MigrationId(id))
}

/// This boot; zeros where the kernel does not tell. Every record of a journal has it, also while a tree is down: it is read once.
pub(crate) fn boot_id() -> BootId {
    static BOOT: OnceLock<[u8; 16]> = OnceLock::new();
    BootId(*BOOT.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        parse_boot_id(&text).unwrap_or([0; 16])
    }))
}

fn parse_boot_id(text: &str) -> Option<[u8; 16]> {
    u128::from_str_radix(&text.trim().replace('-', ""), 16).ok().map(u128::to_be_bytes)
}

/// What this host can do.
pub(crate) fn capabilities() -> Capabilities {
    let mut capabilities = Capabilities::default();
    capabilities.set(FACTS, Value::Bytes(codec::encode(&godwit_engine::host::facts()).unwrap_or_default()));
    capabilities.set(crate::packing::CAPABILITY, Value::Flag(true));
    capabilities.set(crate::packing::DELTA_CAPABILITY, Value::Flag(true));
    capabilities.set(crate::packing::STATE_CAPABILITY, Value::Flag(true));
    capabilities.set(STALE_PAGES, Value::Flag(true));
    capabilities.set(LATE_COMMUNICATION, Value::Flag(true));
    capabilities
}

/// The facts in another host's capabilities.
pub(crate) fn facts(capabilities: &Capabilities) -> Option<HostFacts> {
    match capabilities.0.get(FACTS) {
        Some(Value::Bytes(bytes)) => codec::decode(bytes).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_id_is_read_digit_by_digit() {
        let id = parse_boot_id("00112233-4455-6677-8899-aabbccddeeff\n").unwrap();
        assert_eq!((id[0], id[1], id[15]), (0, 0x11, 0xff));
        assert_eq!(parse_boot_id("nonsense"), None);
    }

    #[test]
    fn facts_survive_being_a_capability() {
        assert_eq!(facts(&capabilities()).map(|facts| facts.kernel), Some(godwit_engine::host::facts().kernel));
    }
}
