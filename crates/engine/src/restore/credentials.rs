//! Credentials: what a thread does to become what it was, in the one order in which each step is still allowed.
use godwit_image::credentials::Credentials;
use godwit_linux::program::Program;

const SYS_SETGROUPS: i64 = 116;
const SYS_SETRESUID: i64 = 117;
const SYS_SETRESGID: i64 = 119;
const SYS_SETFSUID: i64 = 122;
const SYS_SETFSGID: i64 = 123;
const SYS_CAPSET: i64 = 126;
const SYS_PRCTL: i64 = 157;
const SYS_SECCOMP: i64 = 317;
const PR_SET_SECCOMP: u64 = 22;
const PR_CAPBSET_DROP: u64 = 24;
const PR_SET_SECUREBITS: u64 = 28;
const PR_SET_NO_NEW_PRIVS: u64 = 38;
const PR_CAP_AMBIENT: u64 = 47;
const PR_CAP_AMBIENT_RAISE: u64 = 2;
const SECCOMP_SET_MODE_FILTER: u64 = 1;
const CAPABILITY_VERSION_3: u32 = 0x2008_0522;
const SECBIT_NO_SETUID_FIXUP: u32 = 1 << 2;
/// Highest capability that a mask can name.
const CAPABILITIES: u64 = 64;

/// Appends the calls. `now` are the restorer's own credentials, which the skeleton starts with. Returns whether anything
/// that clears `dumpable` and the parent-death signal is among them.
pub(super) fn program(program: &mut Program, wanted: &Credentials, now: &Credentials) -> bool {
    let prctl = |program: &mut Program, option: u64, a: u64, b: u64| {
        program.call("prctl", SYS_PRCTL, [option.into(), a.into(), b.into(), 0_u64.into(), 0_u64.into()]);
    };
    // Filters before privileges go: installing one needs CAP_SYS_ADMIN or no_new_privs. They do not bite yet, since the
    // tracer suspends them.
    if wanted.no_new_privileges {
        prctl(program, PR_SET_NO_NEW_PRIVS, 1, 0);
    }
    seccomp(program, wanted);
    if same(wanted, now) {
        return false;
    }
    let groups: Vec<u8> = wanted.groups.iter().flat_map(|group| group.to_le_bytes()).collect();
    let list = program.data(&groups);
    program.call("setgroups", SYS_SETGROUPS, [wanted.groups.len().into(), list]);
    let [real, effective, saved, filesystem] = wanted.group;
    program.call("setresgid", SYS_SETRESGID, [real.into(), effective.into(), saved.into()]);
    program.call("setfsgid", SYS_SETFSGID, [filesystem.into()]);
    for capability in 0..CAPABILITIES {
        let bit = 1_u64 << capability;
        if now.bounding & bit != 0 && wanted.bounding & bit == 0 {
            prctl(program, PR_CAPBSET_DROP, capability, 0);
        }
    }
    prctl(program, PR_SET_SECUREBITS, u64::from(now.securebits | SECBIT_NO_SETUID_FIXUP), 0);
    let [real, effective, saved, filesystem] = wanted.user;
    program.call("setresuid", SYS_SETRESUID, [real.into(), effective.into(), saved.into()]);
    program.call("setfsuid", SYS_SETFSUID, [filesystem.into()]);
    // Ambient capabilities need permitted and inheritable; raise inheritable first, while everything is permitted.
    capset(
        program,
        now.permitted & (wanted.permitted | 1 << 8),
        now.permitted & (wanted.permitted | 1 << 8),
        wanted.inheritable,
    );
    for capability in (0..CAPABILITIES).filter(|capability| wanted.ambient >> capability & 1 != 0) {
        prctl(program, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability);
    }
    prctl(program, PR_SET_SECUREBITS, u64::from(wanted.securebits), 0);
    capset(program, wanted.permitted, wanted.effective, wanted.inheritable);
    true
}

fn same(wanted: &Credentials, now: &Credentials) -> bool {
    wanted.user == now.user
        && wanted.group == now.group
        && wanted.groups == now.groups
        && wanted.permitted == now.permitted
        && wanted.effective == now.effective
        && wanted.inheritable == now.inheritable
        && wanted.bounding == now.bounding
        && wanted.ambient == now.ambient
        && wanted.securebits == now.securebits
}

/// Whether a thread that is born with these has nothing to do for them.
pub(super) fn are_those_of_birth(wanted: &Credentials, now: &Credentials) -> bool {
    same(wanted, now) && !wanted.no_new_privileges && wanted.seccomp_mode == 0 && wanted.seccomp_filters.is_empty()
}

fn capset(program: &mut Program, permitted: u64, effective: u64, inheritable: u64) {
    let mut header = Vec::new();
    header.extend_from_slice(&CAPABILITY_VERSION_3.to_le_bytes());
    header.extend_from_slice(&0_u32.to_le_bytes());
    let mut data = Vec::new();
    for shift in [0, 32] {
        for set in [effective, permitted, inheritable] {
            data.extend_from_slice(&((set >> shift) as u32).to_le_bytes());
        }
    }
    let header = program.data(&header);
    let data = program.data(&data);
    program.call("capset", SYS_CAPSET, [header, data]);
}

fn seccomp(program: &mut Program, wanted: &Credentials) {
    if wanted.seccomp_mode == 1 {
        program.call("prctl(PR_SET_SECCOMP)", SYS_PRCTL, [PR_SET_SECCOMP.into(), 1_u64.into()]);
    }
    for filter in &wanted.seccomp_filters {
        let code = program.data(&filter.program);
        // struct sock_fprog: a 16-bit count, padding, a pointer.
        let count = (filter.program.len() / 8) as u64;
        let program_header = program.data_with_pointer(&count.to_le_bytes(), code);
        program.call("seccomp", SYS_SECCOMP, [SECCOMP_SET_MODE_FILTER.into(), filter.flags.into(), program_header]);
    }
}
