//! /proc/PID/environ: the memory between env_start and env_end; split it with [`super::cmdline::parse`].

use super::{Error, read_process};

const FILE: &str = "environ";

/// The bytes as they are in the memory of process `pid`: the environment of its exec, unless overwritten. A zombie or
/// kernel thread has none: empty or [`Error::Gone`], by kernel version.
pub fn read(pid: i32) -> Result<Vec<u8>, Error> {
    read_process(pid, FILE, |text| Ok(text.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_environment_is_read() {
        let text = read(std::process::id() as i32).unwrap();
        let path = [b"PATH=", std::env::var("PATH").unwrap().as_bytes()].concat();
        assert!(crate::proc::cmdline::parse(&text).contains(&path.as_slice()));
    }
}
