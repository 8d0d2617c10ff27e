//! A TCP proxy that hurts what goes through it.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Weak};
use std::time::Duration;

/// What it does with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Pass,
    /// Closes what there is and what comes, in order.
    Closed,
    /// The same with a reset.
    Reset,
    /// Keeps everything to itself until it passes again.
    Stalled,
    /// Swallows what goes to the hub; what comes from it passes.
    HalfOpen,
    /// Each piece comes this much later.
    Slow(Duration),
    /// Passes half of the next piece to the hub and closes.
    CutInMessage,
}

type Connection = Arc<(TcpStream, TcpStream)>;

struct State {
    mode: Mode,
    connections: Vec<Weak<(TcpStream, TcpStream)>>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// The proxy; it goes with the test's process.
pub(crate) struct Proxy {
    shared: Arc<Shared>,
    at: SocketAddr,
}

impl Proxy {
    /// Starts one to this address on a free port.
    pub(crate) fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                mode: Mode::Pass,
                connections: Vec::new(),
            }),
            changed: Condvar::new(),
        });
        let here = shared.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                here.connect(client, to);
            }
        });
        Self { shared, at }
    }

    /// Where it listens.
    pub(crate) fn url(&self) -> String {
        format!("nats://{}", self.at)
    }

    /// From now on this.
    pub(crate) fn set(&self, mode: Mode) {
        let mut state = self.shared.lock();
        let before = std::mem::replace(&mut state.mode, mode);
        // What was swallowed is missing in the middle: such a connection cannot go on.
        let broken = before == Mode::HalfOpen;
        if broken || matches!(mode, Mode::Closed | Mode::Reset) {
            for connection in state.connections.drain(..).filter_map(|c| c.upgrade()) {
                close(&connection, broken || mode == Mode::Reset);
            }
        }
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn connect(self: &Arc<Self>, client: TcpStream, to: SocketAddr) {
        let refused = matches!(self.lock().mode, Mode::Closed | Mode::Reset);
        let Some(hub) = (!refused).then(|| TcpStream::connect(to).ok()).flatten() else {
            return;
        };
        let connection: Connection = Arc::new((client, hub));
        let mut state = self.lock();
        state.connections.retain(|c| c.strong_count() > 0);
        state.connections.push(Arc::downgrade(&connection));
        drop(state);
        for to_hub in [true, false] {
            let (here, connection) = (self.clone(), connection.clone());
            std::thread::spawn(move || {
                here.pump(&connection, to_hub);
                // The other direction ends, too, and with it the connection.
                let _ = connection.0.shutdown(Shutdown::Read);
                let _ = connection.1.shutdown(Shutdown::Read);
            });
        }
    }

    fn pump(&self, connection: &Connection, to_hub: bool) {
        let (mut from, mut to) = match to_hub {
            true => (&connection.0, &connection.1),
            false => (&connection.1, &connection.0),
        };
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(n @ 1..) = from.read(&mut buffer) {
            let mut state = self.lock();
            while state.mode == Mode::Stalled {
                state = self.changed.wait(state).unwrap();
            }
            let mode = state.mode;
            drop(state);
            let piece = match mode {
                Mode::HalfOpen if to_hub => continue,
                Mode::CutInMessage if to_hub => &buffer[..n / 2],
                _ => &buffer[..n],
            };
            if let Mode::Slow(late) = mode {
                std::thread::sleep(late);
            }
            if to.write_all(piece).is_err() || (mode == Mode::CutInMessage && to_hub) {
                return;
            }
        }
    }
}

/// Closes both sides; whoever waits in one of them wakes up.
fn close(connection: &Connection, reset: bool) {
    for side in [&connection.0, &connection.1] {
        if reset {
            // Unread and unsent is thrown away, and the other side told so, at the last close.
            let _ = rustix::net::sockopt::set_socket_linger(side, Some(Duration::ZERO));
            let _ = side.shutdown(Shutdown::Read);
        } else {
            let _ = side.shutdown(Shutdown::Both);
        }
    }
}
