//! `tcp://HOST:PORT`: a plain connection to a `godwit receive --listen`.
use super::{Lane, Transport};
use godwit_linux::socket;
use std::io;
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::AsFd;
use std::time::Duration;

/// How long data may stay unacknowledged, or nobody may read, before the link counts as cut: longer than the silence after which a link
/// is given up whose other side says now and then that it lives. Who is only busy does not read for a while.
pub const DEAD_AFTER: Duration = Duration::from_secs(15);

/// BBR, the default of some hosts, costs half of the rate on a fast link, and what it has begun it leaves behind: to be chosen
/// before there is a connection.
const CONGESTION_CONTROL: &str = "cubic";

/// Bytes that may wait to be read: a small tree as a whole, so that its source need not wait until the first of them are needed.
const ROOM_BYTES: i32 = 512 << 10;

/// A destination's address.
#[derive(Clone, Debug)]
pub struct Tcp {
    address: String,
}

impl Tcp {
    /// `HOST:PORT`.
    pub fn new(address: &str) -> Tcp {
        Tcp { address: address.to_owned() }
    }
}

impl Transport for Tcp {
    fn connect(&self, patience: Duration) -> io::Result<Lane> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in self.address.to_socket_addrs()? {
            match godwit_linux::tcp::connect(&address, patience, CONGESTION_CONTROL) {
                Ok(socket) => return lane(TcpStream::from(socket)),
                Err(error) => last = io::Error::from_raw_os_error(error.number),
            }
        }
        Err(last)
    }

    fn name(&self) -> String {
        format!("tcp://{}", self.address)
    }
}

/// Whom a listener accepts begins as it is to be.
pub fn prepare(listener: &TcpListener) {
    // Where the kernel lacks it, its own choice serves.
    let _ = socket::set_congestion_control(listener.as_fd(), CONGESTION_CONTROL);
}

/// The lane of an accepted or made connection.
///
/// # Errors
/// The connection is already gone.
pub fn lane(stream: TcpStream) -> io::Result<Lane> {
    let peer = stream.peer_addr()?.to_string();
    stream.set_nodelay(true)?;
    socket::notice_dead_peer(stream.as_fd(), DEAD_AFTER)?;
    // It only saves time.
    let _ = godwit_linux::tcp::make_room(stream.as_fd(), ROOM_BYTES);
    Lane::socket(stream.into(), peer)
}
