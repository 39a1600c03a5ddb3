//! Trials of single kernel objects that this process makes for itself and closes again.
#![allow(unsafe_code)]

use super::{Feature, Trials};
use crate::errno::{Errno, Result, check, check_int};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// _IOW('T', 0, u64)
const TFD_IOC_SET_TICKS: libc::Ioctl = 0x4008_5400;
/// _IOW('I', 0, i32)
const INOTIFY_IOC_SETNEXTWD: libc::Ioctl = 0x4004_4900;
const TCP_REPAIR: libc::c_int = 19;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLMSG_ERROR: u16 = 2;

pub(super) fn probe(trials: &mut Trials<'_>) {
    trials.put(Feature::MemoryFile, memory_file);
    trials.put(Feature::TimerTicks, timer_ticks);
    trials.put(Feature::WatchNumbers, watch_number);
    trials.put(Feature::ConnectionRepair, connection_repair);
    trials.put(Feature::UnixSockets, || socket_table(libc::AF_UNIX, 0));
    trials.put(Feature::InternetSockets, || socket_table(libc::AF_INET, libc::IPPROTO_TCP));
    trials.put(Feature::Membarrier, membarrier);
}

/// Takes a descriptor that a call has just made.
fn fresh(call: &'static str, raw: libc::c_int) -> Result<OwnedFd> {
    let raw = check_int(call, raw)?;
    // SAFETY: the kernel just gave us this descriptor, nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

fn memory_file() -> Result<()> {
    // SAFETY: a NUL-terminated name.
    fresh("memfd_create", unsafe {
        libc::memfd_create(c"godwit-probe".as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING)
    })
    .map(drop)
}

fn timer_ticks() -> Result<()> {
    // SAFETY: no pointers.
    let timer = fresh("timerfd_create", unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_CLOEXEC) })?;
    let ticks = 3_u64;
    // SAFETY: the kernel reads 8 bytes of the live word.
    check_int("ioctl(TFD_IOC_SET_TICKS)", unsafe {
        libc::ioctl(timer.as_raw_fd(), TFD_IOC_SET_TICKS, &raw const ticks)
    })
    .map(drop)
}

fn watch_number() -> Result<()> {
    // SAFETY: no pointers.
    let watcher = fresh("inotify_init1", unsafe { libc::inotify_init1(libc::IN_CLOEXEC) })?;
    // SAFETY: the argument is an integer.
    check_int("ioctl(INOTIFY_IOC_SETNEXTWD)", unsafe { libc::ioctl(watcher.as_raw_fd(), INOTIFY_IOC_SETNEXTWD, 5) })
        .map(drop)
}

fn connection_repair() -> Result<()> {
    // SAFETY: no pointers.
    let socket = fresh("socket", unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) })?;
    let on = 1_i32;
    // SAFETY: the option is a live int of 4 bytes.
    check_int("setsockopt(TCP_REPAIR)", unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, TCP_REPAIR, (&raw const on).cast(), 4)
    })
    .map(drop)
}

/// Asks sock_diag for the sockets of a family; the first answer tells whether there is a module for it.
fn socket_table(family: libc::c_int, protocol: libc::c_int) -> Result<()> {
    let call = "sock_diag";
    const NETLINK_SOCK_DIAG: libc::c_int = 4;
    // NLM_F_REQUEST | NLM_F_DUMP
    const DUMP: u16 = 1 | 0x300;
    // SAFETY: no pointers.
    let socket =
        fresh(call, unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, NETLINK_SOCK_DIAG) })?;
    // nlmsghdr (16 bytes), then struct unix_diag_req (24) or inet_diag_req_v2 (56): family, protocol, zeros. States 0:
    // no socket is asked for, only the module.
    let length: usize = 16 + if family == libc::AF_UNIX { 24 } else { 56 };
    let mut request = [0_u8; 72];
    request[..4].copy_from_slice(&(length as u32).to_ne_bytes());
    request[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request[6..8].copy_from_slice(&DUMP.to_ne_bytes());
    request[16] = family as u8;
    request[17] = protocol as u8;
    let mut answer = [0_u8; 4096];
    // SAFETY: both buffers are live and at least as long as told.
    let count = unsafe {
        check(call, libc::send(socket.as_raw_fd(), request.as_ptr().cast(), length, 0) as libc::c_long)?;
        check(call, libc::recv(socket.as_raw_fd(), answer.as_mut_ptr().cast(), answer.len(), 0) as libc::c_long)?
    };
    if count < 20 {
        return Err(Errno { number: libc::EIO, call });
    }
    let kind = u16::from_ne_bytes([answer[4], answer[5]]);
    let code = i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]);
    if kind == NLMSG_ERROR && code < 0 { Err(Errno { number: -code, call }) } else { Ok(()) }
}

fn membarrier() -> Result<()> {
    const GET_REGISTRATIONS: libc::c_int = 1 << 9;
    // SAFETY: no pointers.
    check("membarrier(GET_REGISTRATIONS)", unsafe { libc::syscall(libc::SYS_membarrier, GET_REGISTRATIONS, 0, 0) })
        .map(drop)
}
