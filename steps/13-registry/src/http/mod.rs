//! HTTP with a registry.
//!
//! | module | what |
//! |---|---|
//! | [`url`] | addresses, joined and compared |
//! | [`agent`] | connections: certificates, proxies, patience |
//! | [`client`] | requests: redirects, retries, tokens, errors |
//! | [`challenge`], [`token`] | who a server wants to know, and the token dance |
//! | [`pace`] | a body that comes too slowly |

pub mod agent;
pub mod challenge;
pub mod client;
pub mod pace;
pub mod token;
pub mod url;
