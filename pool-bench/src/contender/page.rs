//! Pools of ours, each with a page of its dashboard open.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::{Context, Result};
#[cfg(feature = "cluster")]
use procpool::ClusterPool;
use procpool::dashboard::Dashboard;
use procpool::executor::Executor;
use procpool::{ForkPool, ForkServer, Pool, ServeDashboard};

use super::own::OwnPool;
use super::{Local, Role};
use crate::spin::Pace;

/// A pool that a page shows.
pub struct WithPage<P> {
    // Closed before the pool ends.
    _page: OpenPage,
    _dashboard: Dashboard,
    pool: P,
}

impl<P: Pool> WithPage<P> {
    fn open(pool: P) -> Result<Self> {
        let dashboard = pool.serve_dashboard("127.0.0.1:0")?;
        Ok(Self {
            _page: OpenPage::of(&dashboard)?,
            _dashboard: dashboard,
            pool,
        })
    }
}

impl<P: Pool> Pool for WithPage<P> {
    fn executor(&self) -> &Arc<dyn Executor> {
        self.pool.executor()
    }
}

/// Takes what a page in a browser would be sent, and does nothing with it.
struct OpenPage {
    stream: TcpStream,
    reader: Option<JoinHandle<()>>,
}

impl OpenPage {
    fn of(dashboard: &Dashboard) -> Result<Self> {
        let address = dashboard.address();
        let (_, path) = (dashboard.url().split_once("://"))
            .and_then(|(_, rest)| rest.split_once('/'))
            .context("its address has a path")?;
        let mut stream = TcpStream::connect(address)?;
        let question = format!("GET /{path}events HTTP/1.1\r\nHost: {address}\r\n\r\n");
        stream.write_all(question.as_bytes())?;
        let mut read = stream.try_clone()?;
        let reader = std::thread::spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            // Until the other side, or `drop`, closes it.
            while read.read(&mut buffer).is_ok_and(|count| count > 0) {}
        });
        Ok(Self {
            stream,
            reader: Some(reader),
        })
    }
}

impl Drop for OpenPage {
    fn drop(&mut self) {
        // It fails when the other side has closed it.
        let _ = self.stream.shutdown(Shutdown::Both);
        if let Some(reader) = self.reader.take() {
            // It does not panic.
            let _ = reader.join();
        }
    }
}

/// ForkPool, with a page open.
#[must_use]
pub fn page_of_fork(
    pace: Pace,
    workers: usize,
    server: ForkServer,
) -> Local<OwnPool<WithPage<ForkPool>>> {
    Local::new("page, fork", Role::Ours, pace, workers, move |workers| {
        let builder = ForkPool::builder().processes(workers).fork_server(&server);
        Ok(OwnPool(WithPage::open(builder.build()?)?))
    })
}

/// ClusterPool, with a page open.
#[cfg(feature = "cluster")]
#[must_use]
pub fn page_of_cluster(pace: Pace) -> Local<OwnPool<WithPage<ClusterPool>>> {
    let contender = Local::new("page, cluster", Role::Ours, pace, 0, |_| {
        Ok(OwnPool(WithPage::open(super::own::two_agents()?)?))
    });
    contender.of_fixed_size()
}
