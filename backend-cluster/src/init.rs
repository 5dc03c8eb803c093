//! How a program becomes an agent.

use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

use crate::agent::{Agent, AgentOptions};

/// Makes this program an agent if `PROCPOOL_AGENT` is set; then it never returns. To be called when
/// it is known that this process is no worker.
#[allow(
    clippy::disallowed_methods,
    reason = "an agent is a program of its own, and ends here"
)]
pub fn init() {
    let Some(options) = AgentOptions::of_environment() else {
        return;
    };
    let code = match options.and_then(|options| serve(&options)) {
        Ok(()) => 0,
        Err(text) => {
            eprintln!("procpool agent: {text}");
            1
        }
    };
    std::process::exit(code);
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
