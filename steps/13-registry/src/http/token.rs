//! The token dance (Distribution's token specification): a registry that refuses
//! a request says who hands out tokens for it. That server gets the user's name
//! and password; the registry itself only ever sees the token.

use anyhow::{Context, Result, bail, ensure};
use data_encoding::BASE64;
use serde::Deserialize;
use ureq::http::Method;

use crate::credentials::Login;
use crate::http::challenge::{Challenge, challenges};
use crate::http::client::{Client, Payload, error_of, read_small};
use crate::http::url::{Scheme, Url, escaped};
use crate::reference::is_loopback;

/// The largest answer of a token server, in bytes.
const LARGEST: u64 = 1 << 20;

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
}

impl Client {
    /// The value of `Authorization` that meets one of the demands, for `scopes`.
    // ANCHOR: authorize
    pub(super) fn authorize(&self, demands: &[String], scopes: &[String]) -> Result<String> {
        let demands: Vec<Challenge> = demands.iter().flat_map(|one| challenges(one)).collect();
        let of = |scheme: &str| demands.iter().find(|one| one.scheme == scheme);
        if let Some(demand) = of("bearer") {
            let token = self.token(demand, scopes)?;
            ensure!(
                !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()),
                "the token server's answer holds no token"
            );
            return Ok(format!("Bearer {token}"));
        }
        if of("basic").is_some() {
            return match &self.login {
                Some(Login::Password { user, password }) => Ok(basic(user, password)),
                _ => bail!(
                    "no basic auth credentials: see drydock login {}",
                    self.base.host
                ),
            };
        }
        bail!(
            "{} wants to know who asks, in a way that is not known here",
            self.base.host
        )
    }
    // ANCHOR_END: authorize

    fn token(&self, demand: &Challenge, scopes: &[String]) -> Result<String> {
        let parameter = |name: &str| demand.parameters.get(name);
        let realm = parameter("realm").context("the registry names no token server")?;
        let mut url = Url::parse(realm).context("the address of the token server")?;
        let is_safe = url.scheme == Scheme::Https
            || self.base.scheme == Scheme::Http && (is_loopback(&url.host) || self.insecure);
        ensure!(
            is_safe,
            "the token server {url} is asked without encryption: refused"
        );
        let said: Vec<String> = parameter("scope").into_iter().cloned().collect();
        let scopes = if scopes.is_empty() { &said } else { scopes };
        let service = parameter("service").cloned().unwrap_or_default();
        let response = match &self.login {
            Some(Login::Token(refresh)) => {
                let form = format!(
                    "grant_type=refresh_token&service={}&client_id=drydock&scope={}&refresh_token={}",
                    escaped(&service),
                    escaped(&scopes.join(" ")),
                    escaped(refresh),
                );
                let headers = [("content-type", "application/x-www-form-urlencoded")];
                self.once(
                    &Method::POST,
                    &url,
                    &headers,
                    &Payload::Bytes(form.as_bytes()),
                )?
            }
            login => {
                if !service.is_empty() {
                    url = url.with("service", &service);
                }
                for scope in scopes {
                    url = url.with("scope", scope);
                }
                let mut authorization = None;
                if let Some(Login::Password { user, password }) = login {
                    url = url.with("account", user);
                    authorization = Some(basic(user, password));
                }
                let headers = authorization
                    .iter()
                    .map(|value| ("authorization", value.as_str()));
                let headers: Vec<_> = headers.collect();
                self.once(&Method::GET, &url, &headers, &Payload::None)?
            }
        };
        if !response.status().is_success() {
            return Err(error_of(response, self.patience)).context("the token server");
        }
        let answer = read_small(response, LARGEST, self.patience).context("the token server")?;
        let answer: Answer = serde_json::from_slice(&answer)
            .map_err(|_| anyhow::anyhow!("the token server's answer is not what it should be"))?;
        Ok(match answer.token.is_empty() {
            true => answer.access_token,
            false => answer.token,
        })
    }
}

fn basic(user: &str, password: &str) -> String {
    format!(
        "Basic {}",
        BASE64.encode(format!("{user}:{password}").as_bytes())
    )
}
