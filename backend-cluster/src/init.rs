//! How a program becomes an agent.

use std::sync::atomic::{AtomicBool, Ordering};

use procpool_core::{BuildError, BuildErrorKind, shared_object, worker};
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

use crate::agent::{Agent, AgentOptions, variables};

/// Whether [`init`] has been called in this process, so that its agents call it, too.
static IS_CALLED: AtomicBool = AtomicBool::new(false);

/// Makes this program an agent if `PROCPOOL_AGENT` is set; then it never returns. To be called when
/// it is known that this process is no worker.
#[allow(
    clippy::disallowed_methods,
    reason = "an agent is a program of its own, and ends here"
)]
pub fn init() {
    IS_CALLED.store(true, Ordering::Release);
    let Some(options) = AgentOptions::of_environment() else {
        return;
    };
    // As in any program of Rust's, also where this is called before `main`.
    procpool_core::ignore_signals_of_files();
    let code = match options.and_then(|options| serve(&options)) {
        Ok(()) => 0,
        Err(text) => {
            eprintln!("procpool agent: {text}");
            1
        }
    };
    std::process::exit(code);
}

/// The same, for the loader to call before `main`.
///
/// In a shared object it does nothing. The loader may hold its lock until this returns, which an
/// agent never does, and its threads would wait for the lock forever.
pub fn init_at_load() {
    if shared_object().is_none() {
        init();
    }
}

/// Whether agents that this process starts come to [`init`]: if not, they would be programs that
/// start agents, too.
///
/// # Errors
/// When they do not.
pub(crate) fn check_ready() -> Result<(), BuildError> {
    let missing = |text: String| BuildError::new(BuildErrorKind::MissingInit, text);
    if let Some(object) = shared_object() {
        let object = object.display();
        return Err(missing(format!(
            "the agents of ClusterPool::local are this program, executed again, and this code is \
             in a shared object ({object}), which they do not load: use a SpawnPool or a ForkPool"
        )));
    }
    procpool_spawn::check_ready().map_err(|error| missing(error.to_string()))?;
    if IS_CALLED.load(Ordering::Acquire) {
        return Ok(());
    }
    Err(missing(
        "procpool_cluster::init() has not been called in this process: it comes behind \
         procpool_spawn::init(), and procpool::init() calls both"
            .into(),
    ))
}

/// Whether this process is none that was started as an agent and has come past [`init`]. (A shared
/// object cannot know what its program was started for.)
///
/// # Errors
/// When it is one.
pub(crate) fn check_not_passed_by() -> Result<(), BuildError> {
    let server = variables::SERVER;
    let is_agent = std::env::var_os(server).is_some() && worker::current().is_none();
    if is_agent && shared_object().is_none() && !IS_CALLED.load(Ordering::Acquire) {
        let text = format!(
            "this process was started as an agent ({server} is set), but passed by \
             procpool::init(): call it as the first line of main, or say \
             procpool::init_before_main!() where there is no main; a program that is to be no \
             agent is started without that variable"
        );
        return Err(BuildError::new(BuildErrorKind::MissingInit, text));
    }
    Ok(())
}

fn serve(options: &AgentOptions) -> Result<(), String> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("there is no runtime to be had: {error}"))?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())
            .map_err(|error| format!("SIGTERM cannot be waited for: {error}"))?;
        let (agent, subscriptions, reports) = Agent::new(options).await?;
        let leave = Box::pin(async move {
            terminate.recv().await;
        });
        agent.run(subscriptions, reports, leave).await
    })
}
