//! Workers on other machines for `procpool`, reached over NATS: see the feature `cluster` of the
//! crate `procpool`.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![allow(dead_code, reason = "it is being built")]

mod agent_info;
mod client;
mod clock;
mod dispatcher;
mod intake;
mod link;
mod local;
mod message;
mod nats;
#[cfg(test)]
mod simulation;
