//! A page in the browser that shows a pool at work.
//!
//! ```
//! use procpool_core as procpool;
//! # use procpool_dashboard as dashboard;
//! use procpool::{Pool, SerialPool};
//! use dashboard::ServeDashboard;
//!
//! let pool = SerialPool::new();
//! let dashboard = pool.serve_dashboard("127.0.0.1:0")?;
//! println!("see {dashboard}");
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! The page has the workers as lanes of a timeline, with what each was at, and why one was lost;
//! each call with its progress, rate, time left and failures; the last failures with their whole
//! errors; and of each worker what it does, how busy it is, and its processor time and memory. A
//! click on a worker shows its stack.
//!
//! # What it costs
//! While no page is open, the pool is not observed: a thread waits for connections, and that is
//! all. While one is open, another thread looks at the pool four times a second, and is told of
//! chunks that take 5 ms and more, and of failures.
//!
//! # Who can see it
//! Who has the address: it has a token of 128 random bits. It is served on this machine alone,
//! unless [`DashboardOptions::beyond_this_machine`] says otherwise, and pages of other origins get
//! nothing. What is sent is not encrypted. Arguments and results are not shown, but messages of
//! panics, lines of standard error and stacks are. To change the pool from the page, ask for
//! [`DashboardOptions::buttons`].

mod access;
mod answer;
mod feed;
mod history;
mod lanes;
mod message;
mod server;

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::thread::JoinHandle;

use procpool_core::Pool;
use tokio::sync::oneshot;

use crate::access::Access;
use crate::feed::Feed;
use crate::message::Hello;
use crate::server::Server;

/// The method [`serve_dashboard`](Self::serve_dashboard), for every pool.
pub trait ServeDashboard: Pool {
    /// Serves a page that shows this pool, at this address of this machine, until the [`Dashboard`]
    /// is dropped. `127.0.0.1:0` takes a port that is free. The pool may end before.
    ///
    /// With other options: [`DashboardOptions::serve`].
    ///
    /// # Errors
    /// When the address is not one of this machine's own or is taken, the system refuses a thread,
    /// or the pool cannot be observed.
    fn serve_dashboard(&self, address: impl ToSocketAddrs) -> io::Result<Dashboard> {
        DashboardOptions::new().serve(self, address)
    }
}

impl<P: Pool + ?Sized> ServeDashboard for P {}

/// How a pool is shown.
///
/// ```
/// use procpool_core as procpool;
/// # use procpool_dashboard as dashboard;
/// use procpool::SerialPool;
/// use dashboard::DashboardOptions;
///
/// let pool = SerialPool::new();
/// let options = DashboardOptions::new().title("thumbnails").buttons();
/// let dashboard = options.serve(&pool, "127.0.0.1:0")?;
/// assert!(dashboard.url().starts_with("http://127.0.0.1:"));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct DashboardOptions {
    title: Option<String>,
    has_buttons: bool,
    is_public: bool,
}

impl DashboardOptions {
    /// The page can be seen on this machine alone, changes nothing, and has the program's name.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What stands above the page.
    #[must_use]
    pub fn title(mut self, title: impl Into<String>) -> Self {
        self.title = Some(title.into());
        self
    }

    /// Who sees the page can cancel calls and resize the pool.
    #[must_use]
    pub fn buttons(mut self) -> Self {
        self.has_buttons = true;
        self
    }

    /// Addresses that other machines reach are served, too. Nothing is encrypted: whoever sees the
    /// traffic has the token.
    #[must_use]
    pub fn beyond_this_machine(mut self) -> Self {
        self.is_public = true;
        self
    }

    /// See [`ServeDashboard::serve_dashboard`].
    ///
    /// # Errors
    /// As there.
    pub fn serve(
        self,
        pool: &(impl Pool + ?Sized),
        address: impl ToSocketAddrs,
    ) -> io::Result<Dashboard> {
        let addresses: Vec<SocketAddr> = address.to_socket_addrs()?.collect();
        let is_own = |address: &SocketAddr| address.ip().is_loopback();
        if let Some(public) = addresses.iter().find(|it| !self.is_public && !is_own(it)) {
            let message = format!(
                "other machines may reach {public}, where a dashboard is served only if \
                 `DashboardOptions::beyond_this_machine` says so; `127.0.0.1` is this one's own"
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let listener = std::net::TcpListener::bind(&addresses[..])?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let access = Access::new(address)?;
        let url = access.url();
        let hello = Hello::new(self.title, self.has_buttons);
        // It would say on the page that it sees nothing.
        drop(pool.observe(procpool_core::Observe::Workers)?);
        let feed = Arc::new(Feed::new(pool.downgrade(), hello));
        let server = Server::new(access, feed.clone(), self.has_buttons);
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("procpool-http".into())
            .spawn(server.run(listener, stopped)?)?;
        Ok(Dashboard {
            url,
            address,
            feed,
            stop: Some(stop),
            thread: Some(thread),
            process: std::process::id(),
        })
    }
}

/// Shows a pool until it is dropped: what [`ServeDashboard::serve_dashboard`] returns. Printed, it
/// is the address of its page.
#[must_use = "the page is gone when it is dropped"]
pub struct Dashboard {
    url: String,
    address: SocketAddr,
    feed: Arc<Feed>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    /// Where its threads are.
    process: u32,
}

impl Dashboard {
    /// Where its page is, with the token: to be opened in a browser.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where it is served.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl fmt::Display for Dashboard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

impl fmt::Debug for Dashboard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the token, for it may be logged.
        f.debug_struct("Dashboard")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Drop for Dashboard {
    fn drop(&mut self) {
        if self.process != std::process::id() {
            // In a fork there are no threads.
            return;
        }
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // If it has panicked it has said so.
            let _ = thread.join();
        }
        self.feed.end();
    }
}
