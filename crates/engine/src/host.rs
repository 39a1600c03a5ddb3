//! Facts about this host that travel with an image.
use godwit_image::host::HostFacts;
use std::sync::OnceLock;

fn text(path: &str) -> String {
    std::fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
}

/// The processor's features, sorted: they stay what they are, and the kernel takes its time to tell them.
fn processor_flags() -> &'static str {
    static FLAGS: OnceLock<String> = OnceLock::new();
    FLAGS.get_or_init(|| sorted_flags(&text("/proc/cpuinfo")))
}

fn sorted_flags(cpuinfo: &str) -> String {
    let mut flags: Vec<&str> = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("flags"))
        .and_then(|line| line.split_once(':'))
        .map(|(_, flags)| flags.split_ascii_whitespace().collect())
        .unwrap_or_default();
    flags.sort_unstable();
    flags.join(" ")
}

/// Whether those facts are of this very kernel since its last start: then files, pipes and locks of the two are the same.
pub(crate) fn is_this_boot(facts: &HostFacts) -> bool {
    !facts.boot_id.is_empty() && facts.boot_id.trim() == text("/proc/sys/kernel/random/boot_id")
}

/// Reads the facts; what cannot be read stays empty.
pub fn facts() -> HostFacts {
    at_this_moment(&HostFacts {
        name: text("/proc/sys/kernel/hostname"),
        kernel: text("/proc/sys/kernel/osrelease"),
        boot_id: text("/proc/sys/kernel/random/boot_id"),
        machine: std::env::consts::ARCH.to_owned(),
        processor_flags: processor_flags().to_owned(),
        extended_state_mask: godwit_linux::clock::extended_state_mask(),
        extended_state_bytes: godwit_linux::clock::extended_state_bytes(),
        ..HostFacts::default()
    })
}

/// The same facts with what the clocks show now.
pub(crate) fn at_this_moment(facts: &HostFacts) -> HostFacts {
    let clocks = godwit_linux::clock::now();
    HostFacts {
        monotonic_ns: clocks.monotonic,
        monotonic_raw_ns: clocks.monotonic_raw,
        monotonic_coarse_ns: clocks.monotonic_coarse,
        boottime_ns: clocks.boottime,
        realtime_ns: clocks.realtime,
        ..facts.clone()
    }
}
