//! Which features of the processor a program may have chosen its code by, and may use at any moment after a move.

/// Flags of /proc/cpuinfo that stand for instructions (or state) of user space. A program asks for them once, when it starts (the C
/// library's IFUNCs do), and where one is missing afterwards it dies of SIGILL or computes something else. Flags that only the
/// kernel uses, or that say only how fast something is, are not among them.
const OF_PROGRAMS: &[&str] = &[
    "3dnow",
    "3dnowext",
    "abm",
    "adx",
    "aes",
    "amx_bf16",
    "amx_complex",
    "amx_fp16",
    "amx_int8",
    "amx_tile",
    "apx",
    "avx",
    "avx2",
    "avx512_4fmaps",
    "avx512_4vnniw",
    "avx512_bf16",
    "avx512_bitalg",
    "avx512_fp16",
    "avx512_vbmi2",
    "avx512_vnni",
    "avx512_vp2intersect",
    "avx512_vpopcntdq",
    "avx512bw",
    "avx512cd",
    "avx512dq",
    "avx512er",
    "avx512f",
    "avx512ifma",
    "avx512pf",
    "avx512vbmi",
    "avx512vl",
    "avx_ifma",
    "avx_ne_convert",
    "avx_vnni",
    "avx_vnni_int16",
    "avx_vnni_int8",
    "bmi1",
    "bmi2",
    "clflush",
    "clflushopt",
    "clwb",
    "clzero",
    "cmov",
    "cmpccxadd",
    "cx16",
    "cx8",
    "enqcmd",
    "f16c",
    "fma",
    "fma4",
    "fsgsbase",
    "fxsr",
    "gfni",
    "hle",
    "lahf_lm",
    "lwp",
    "mmx",
    "mmxext",
    "monitorx",
    "movbe",
    "movdir64b",
    "movdiri",
    "mwaitx",
    "ospke",
    "pclmulqdq",
    "pku",
    "pni",
    "popcnt",
    "ptwrite",
    "rdpid",
    "rdpru",
    "rdrand",
    "rdseed",
    "rdtscp",
    "rtm",
    "serialize",
    "sha512",
    "sha_ni",
    "sm3",
    "sm4",
    "sse",
    "sse2",
    "sse4_1",
    "sse4_2",
    "sse4a",
    "ssse3",
    "tbm",
    "tsc",
    "tsxldtrk",
    "user_shstk",
    "vaes",
    "vpclmulqdq",
    "waitpkg",
    "xgetbv1",
    "xop",
    "xsave",
    "xsavec",
    "xsaveopt",
];

/// Those features of the source that the destination lacks and a program may use. Both as /proc/cpuinfo names them.
pub(crate) fn missing<'a>(source: &'a str, destination: &str) -> Vec<&'a str> {
    let there: std::collections::BTreeSet<&str> = destination.split_ascii_whitespace().collect();
    let lacks = |flag: &&str| OF_PROGRAMS.binary_search(flag).is_ok() && !there.contains(flag);
    source.split_ascii_whitespace().filter(lacks).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_names_what_this_processor_has() {
        assert!(OF_PROGRAMS.windows(2).all(|pair| pair[0] < pair[1]));
        let here = crate::host::facts().processor_flags;
        assert!(missing(&here, &here).is_empty());
        let all = missing(&here, "");
        assert!(["sse2", "cmov"].iter().all(|flag| all.contains(flag)), "{all:?}");
    }

    #[test]
    fn what_only_the_kernel_uses_does_not_matter() {
        assert_eq!(missing("avx2 avx512f constant_tsc smep svm", "avx2"), ["avx512f"]);
        assert_eq!(missing("avx2", "avx2 avx512f"), [""; 0]);
    }
}
