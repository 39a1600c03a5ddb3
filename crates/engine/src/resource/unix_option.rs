//! Options of Unix sockets that are set at the destination as they were read: only those that a new socket does not have
//! anyway, since every call counts while a tree with many sockets is down.
use godwit_linux::{socket, unix_socket};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};

const SOL_SOCKET: i32 = 1;
/// Options of level SOL_SOCKET that are set as they are read, and their bytes: DEBUG, REUSEADDR, DONTROUTE, BROADCAST,
/// KEEPALIVE, OOBINLINE, NO_CHECK, PRIORITY, LINGER, REUSEPORT, PASSCRED, RCVLOWAT, TIMESTAMP, PASSSEC, TIMESTAMPNS, MARK,
/// RXQ_OVFL, WIFI_STATUS, PEEK_OFF, RCVTIMEO, SNDTIMEO, PASSPIDFD, PASSRIGHTS.
const OPTIONS: [(i32, usize); 23] = [
    (1, 4),
    (2, 4),
    (5, 4),
    (6, 4),
    (9, 4),
    (10, 4),
    (11, 4),
    (12, 4),
    (13, 8),
    (15, 4),
    (16, 4),
    (18, 4),
    (29, 4),
    (34, 4),
    (35, 4),
    (36, 4),
    (40, 4),
    (41, 4),
    (42, 4),
    (66, 16),
    (67, 16),
    (76, 4),
    (83, 4),
];

thread_local! {
    /// Options of new sockets by type, read once.
    static FRESH: RefCell<BTreeMap<i32, FreshOptions>> = const { RefCell::new(BTreeMap::new()) };
}

/// In the order of [`OPTIONS`]; none where the kernel has no such option.
type FreshOptions = Vec<Option<Vec<u8>>>;

fn read_fresh(sort: i32) -> FreshOptions {
    let fresh = unix_socket::create(sort).ok();
    let option = |(option, length): &(i32, usize)| {
        fresh.as_ref().and_then(|fresh| socket::get(fresh.as_fd(), SOL_SOCKET, *option, *length).ok())
    };
    OPTIONS.iter().map(option).collect()
}

/// The options of a socket that a new one of its type does not have.
pub(super) fn unlike_fresh(own: BorrowedFd<'_>, sort: i32) -> Vec<(i32, Vec<u8>)> {
    FRESH.with_borrow_mut(|known| {
        let fresh = known.entry(sort).or_insert_with(|| read_fresh(sort));
        let options = OPTIONS.iter().zip(fresh).filter_map(|((option, length), fresh)| {
            let mut room = [0; 16];
            let value = socket::get_into(own, SOL_SOCKET, *option, room.get_mut(..*length)?).ok()?;
            (Some(&*value) != fresh.as_deref()).then(|| (*option, value.to_vec()))
        });
        options.collect()
    })
}
