//! Workers on other machines for `procpool`, reached over NATS: see the feature `cluster` of the
//! crate `procpool`.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![allow(dead_code, reason = "it is being built")]

mod agent;
mod dispatcher;
mod intake;
mod link;
mod local;
mod message;
#[cfg(test)]
mod simulation;
