//! /proc/cpuinfo: what the processors of this host are and can do.

use std::collections::BTreeSet;

use super::cursor::{Line, Lines};
use super::{Error, Malformed, read_host};

/// The processors of a host together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Processors {
    /// How many are online.
    pub count: usize,
    /// `vendor_id` of the first.
    pub vendor: String,
    /// `model name` of the first.
    pub model_name: String,
    /// `flags` that every one has: a task may run on any.
    pub flags: BTreeSet<String>,
}

const FILE: &str = "cpuinfo";

/// Parses the text of cpuinfo (x86).
pub fn parse(text: &[u8]) -> Result<Processors, Malformed> {
    let mut count = 0;
    let mut vendor = None;
    let mut model_name = None;
    let mut common: Option<BTreeSet<String>> = None;
    // The first processor's line of flags; the others mostly have the same one.
    let mut first: &[u8] = b"";
    let mut lines = Lines::new(FILE, text)?;
    for mut line in lines.by_ref() {
        if line.at_end() {
            continue;
        }
        let Some(key) = line.before(b':') else { return Err(line.malformed("no : behind the name")) };
        line.blanks();
        match key.trim_ascii_end() {
            b"processor" => count += 1,
            b"vendor_id" if vendor.is_none() => vendor = Some(ascii(&line, line.rest())?),
            b"model name" if model_name.is_none() => model_name = Some(ascii(&line, line.rest())?),
            b"flags" => match &mut common {
                Some(_) if line.rest() == first => {}
                Some(common) => {
                    let flags = names(line)?;
                    common.retain(|flag| flags.contains(flag));
                }
                None => {
                    first = line.rest();
                    common = Some(names(line)?);
                }
            },
            _ => {}
        }
    }
    match (count, vendor, common) {
        (1.., Some(vendor), Some(flags)) => {
            Ok(Processors { count, vendor, model_name: model_name.unwrap_or_default(), flags })
        }
        _ => Err(lines.malformed("processor, vendor_id or flags is missing")),
    }
}

fn names(mut line: Line<'_>) -> Result<BTreeSet<String>, Malformed> {
    let mut names = BTreeSet::new();
    while !line.at_end() {
        let word = line.word();
        names.insert(ascii(&line, word)?);
    }
    Ok(names)
}

fn ascii(line: &Line<'_>, text: &[u8]) -> Result<String, Malformed> {
    match std::str::from_utf8(text) {
        Ok(text) if text.is_ascii() => Ok(text.to_owned()),
        _ => Err(line.malformed("no ASCII text")),
    }
}

/// The processors that are online.
pub fn read() -> Result<Processors, Error> {
    read_host(FILE, parse)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proc::mutation;

    const GOLDEN: &[u8] = b"processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t\t: 17\nmodel name\t: AMD EPYC\nstepping\t: 1\nflags\t\t: fpu vme avx2 avx512f 3dnowprefetch\nbugs\t\t: sysret_ss_attrs\nbogomips\t: 5192.27\npower management:\n\nprocessor\t: 1\nvendor_id\t: AuthenticAMD\nflags\t\t: fpu vme avx2 3dnowprefetch\npower management:\n\n";

    #[test]
    fn processors() {
        let processors = parse(GOLDEN).unwrap();
        assert_eq!((processors.count, processors.vendor.as_str()), (2, "AuthenticAMD"));
        assert_eq!(processors.model_name, "AMD EPYC");
        assert_eq!(processors.flags.iter().collect::<Vec<_>>(), ["3dnowprefetch", "avx2", "fpu", "vme"]);
        parse(b"").unwrap_err();
        mutation::try_all(GOLDEN, |text| parse(text).is_ok());
        assert!(read().unwrap().flags.contains("fpu"));
    }
}
