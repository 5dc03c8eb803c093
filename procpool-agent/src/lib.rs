//! What the command `procpool-agent` does, for commands that have it as a part: `procpool agent`.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use clap::{Args, Parser, Subcommand};
use procpool_cluster::programs::{ProgramAgent, ProgramAgentOptions};

/// Makes this machine a part of procpool clusters: fetches the programs that clients publish,
/// and executes those that trusted keys have signed.
///
/// What the server asks for, how many workers a program has, and this machine's name come from the
/// environment: PROCPOOL_AGENT_CREDENTIALS, _TOKEN, _TLS_CA, _TLS_CERT, _TLS_KEY, _PROCESSES and
/// _NAME.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
pub struct Options {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Serve,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Writes a new key into a file, for `ClusterPool::builder(..).sign_program(file)`, and prints
    /// its public part, for `--trusted-key`.
    NewKey {
        /// The file, which must not be there.
        file: PathBuf,
    },
}

#[derive(Debug, Args)]
struct Serve {
    /// The NATS server, like nats://host:4222. With a password, better in the variable: others on
    /// this machine can read arguments.
    #[arg(env = "PROCPOOL_AGENT", hide_env_values = true)]
    server: Option<String>,
    /// The public part of a key: programs that it has signed are executed. More than one may be
    /// given.
    #[arg(
        long,
        value_name = "KEY",
        env = "PROCPOOL_AGENT_TRUSTED_KEYS",
        value_delimiter = ','
    )]
    trusted_key: Vec<String>,
    /// Executes all programs: whoever may publish at the server may run code here.
    #[arg(long)]
    allow_unsigned: bool,
    /// The folder for programs; without it, `procpool` in the user's folder for caches.
    #[arg(long, value_name = "FOLDER")]
    cache: Option<PathBuf>,
    /// How large a program may be, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    max_size: u64,
    /// How many programs may run at the same time. Each has as many workers as
    /// PROCPOOL_AGENT_PROCESSES says, or as there are processors.
    #[arg(long, value_name = "NUMBER", default_value_t = 8)]
    max_programs: usize,
    /// A program without a client leaves after so many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 60,
          value_parser = clap::value_parser!(u64).range(1..))]
    idle: u64,
}

/// Does what the options say. An agent ends only with an error, or when it is told to.
///
/// # Errors
/// When an option is missing or makes no sense, or the server cannot be reached.
pub fn run(options: Options) -> Result<()> {
    match options.command {
        Some(Command::NewKey { file }) => new_key(&file),
        None => serve(options.serve),
    }
}

fn new_key(file: &Path) -> Result<()> {
    let key = nkeys::KeyPair::new_user();
    let seed = key.seed().context("there is no key to be had")?;
    let opened = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file);
    let shown = || format!("{} cannot be written", file.display());
    let mut opened = opened.with_context(shown)?;
    writeln!(opened, "{seed}").with_context(shown)?;
    println!("{}", key.public_key());
    Ok(())
}

fn serve(options: Serve) -> Result<()> {
    let server = options.server.context(
        "no server is named: give its address, like nats://host:4222, or set PROCPOOL_AGENT",
    )?;
    let cache = options.cache.or_else(cache).context(
        "there is no folder for programs: name one with --cache, since neither HOME nor \
         XDG_CACHE_HOME is set",
    )?;
    let served = ProgramAgent::run(ProgramAgentOptions {
        server,
        trusted_keys: options.trusted_key,
        allow_unsigned: options.allow_unsigned,
        cache,
        max_size: options.max_size << 20,
        max_programs: options.max_programs,
        idle: Duration::from_secs(options.idle),
    });
    served.map_err(|text| anyhow!(text))
}

/// Where this user's caches are: of a service as systemd says it, else as the XDG's specification
/// of base directories does.
fn cache() -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let own = folder("CACHE_DIRECTORY").or_else(|| folder("XDG_CACHE_HOME"));
    let own = own.or_else(|| Some(folder("HOME")?.join(".cache")));
    let absolute = own.filter(|it| it.is_absolute());
    absolute.map(|it| it.join("procpool"))
}

#[cfg(test)]
mod tests {
    use super::Options;
    use clap::CommandFactory;

    #[test]
    fn arguments_are_consistent() {
        Options::command().debug_assert();
    }
}
