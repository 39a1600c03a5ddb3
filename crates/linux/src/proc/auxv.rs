//! /proc/PID/auxv: the auxiliary vector that exec gave to a process.

use super::{Error, Malformed, read_process};

const FILE: &str = "auxv";
/// AT_VECTOR_SIZE is about 50 words on every architecture.
const MAX_PAIRS: usize = 64;

/// Parses pairs of (AT_* key, value), up to and including the AT_NULL that must end them; what follows it must be zero.
pub fn parse(bytes: &[u8]) -> Result<Vec<(u64, u64)>, Malformed> {
    let malformed = |why| Malformed { file: FILE, line: 0, why };
    let (words, []) = bytes.as_chunks::<8>() else { return Err(malformed("the length is no multiple of 8")) };
    let mut pairs = Vec::new();
    let mut words = words.iter().map(|word| u64::from_ne_bytes(*word));
    loop {
        let (Some(key), Some(value)) = (words.next(), words.next()) else { return Err(malformed("no AT_NULL")) };
        if pairs.len() == MAX_PAIRS {
            return Err(malformed("longer than the kernel makes it"));
        }
        pairs.push((key, value));
        if key == libc::AT_NULL {
            break;
        }
    }
    if words.any(|word| word != 0) {
        return Err(malformed("entries behind AT_NULL"));
    }
    Ok(pairs)
}

/// The vector of process `pid`, with its AT_NULL. A zombie or kernel thread has none: [`Error::Gone`].
pub fn read(pid: i32) -> Result<Vec<(u64, u64)>, Error> {
    read_process(pid, FILE, parse)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proc::mutation;

    #[test]
    fn vectors() {
        let bytes: Vec<u8> =
            [33, 0x7f5c_19ad_3000, 6, 4096, 0, 0].iter().flat_map(|word: &u64| word.to_ne_bytes()).collect();
        assert_eq!(parse(&bytes).unwrap(), [(33, 0x7f5c_19ad_3000), (6, 4096), (0, 0)]);
        parse(&bytes[..32]).unwrap_err();
        parse(&bytes[..47]).unwrap_err();
        parse(b"").unwrap_err();
        mutation::try_all(&bytes, |text| parse(text).is_ok());
    }

    #[test]
    fn own_vector_is_read() {
        let pairs = read(std::process::id() as i32).unwrap();
        assert!(pairs.contains(&(libc::AT_PAGESZ, 4096)));
        assert!(pairs.iter().any(|(key, value)| *key == libc::AT_SYSINFO_EHDR && value % 4096 == 0));
        assert!(matches!(read(i32::MAX), Err(Error::Gone)));
    }
}
