//! Defaults for options that are not given.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use clap::ValueEnum;
use kit::atomic_file::write_file;
use kit::own::make;
use kit::{SignalNumber, warn};
use net::NetSettings;
use net::NetworkMode;
use union::{Kind, detect};
use user::UserSpec;
use user::caller::Caller;
use uts::{NamespaceMode, UtsSettings};

use crate::image::config::Config;

/// The storage driver: the one asked for, or the preferred one. That is
/// detected at the first start, which takes longer than all the rest of a
/// start, and noted in the file `driver` below `root`.
pub fn driver(root: &Path, asked: Option<Kind>) -> Result<Kind> {
    if let Some(kind) = asked {
        return Ok(kind);
    }
    let note = root.join("driver");
    let noted = fs::read_to_string(&note).ok();
    if let Some(kind) = noted.and_then(|noted| Kind::from_str(&noted, false).ok()) {
        return Ok(kind);
    }
    let kind = detect::preferred(root)?;
    // What was tried there may have been all that was there.
    make(root, 0o711)?;
    write_file(&note, kind.as_str())?;
    Ok(kind)
}

/// The image's user, else root. Of `USER:GROUP:…` Docker ignores what follows
/// the second colon; in a `--user` of the caller's it is a mistake.
///
/// # Errors
/// If a number is out of range.
pub fn image_user(image: &Config) -> Result<UserSpec> {
    let text = match &*image.user {
        "" => "0",
        text => text,
    };
    let end = text.match_indices(':').nth(1).map(|(end, _)| end);
    text[..end.unwrap_or(text.len())]
        .parse()
        .with_context(|| format!("the image's user {text:?}"))
}

/// The image's labels, overridden by the caller's.
pub(crate) fn labels(image: &Config, given: &[String]) -> BTreeMap<String, String> {
    let mut labels = image.labels.clone();
    for label in given {
        let (name, value) = label.split_once('=').unwrap_or((label, ""));
        labels.insert(name.to_owned(), value.to_owned());
    }
    labels
}

/// The name of the signal that asks the container to end: the caller's, else
/// the image's, else SIGTERM.
///
/// # Errors
/// If the caller's text names no signal.
pub(crate) fn stop_signal(image: &Config, asked: Option<String>) -> Result<String> {
    if let Some(text) = asked {
        let signal: SignalNumber = text.parse().context("--stop-signal")?;
        return Ok(signal.to_string());
    }
    const DEFAULT: &str = "SIGTERM";
    Ok(match image.stop_signal.as_deref() {
        None | Some("") => DEFAULT.into(),
        Some(text) => match text.parse::<SignalNumber>() {
            Ok(signal) => signal.to_string(),
            // As Docker does: whoever runs an image cannot repair it.
            Err(error) => {
                warn!("the image's StopSignal: {error:#}; {DEFAULT} is sent");
                DEFAULT.into()
            }
        },
    })
}

/// Sets the host name to the container's id, unless one is given or the UTS
/// namespace is shared.
pub(crate) fn choose_hostname(uts: &mut UtsSettings, id: &str) {
    if uts.hostname.is_none() && uts.uts == NamespaceMode::Private {
        uts.hostname = Some(id.into());
    }
}

/// Chooses the network if no option does: the bridge, as Docker does, or none
/// for an ordinary user, who cannot make a bridge.
pub(crate) fn choose_network(net: &mut NetSettings) -> Result<()> {
    if net.network.is_some() || net.mode() == NetworkMode::Bridge {
        return Ok(());
    }
    if Caller::look()?.is_privileged() {
        net.network = Some(NetworkMode::Bridge);
        return Ok(());
    }
    net.network = Some(NetworkMode::None);
    kit::errln!(
        "drydock: without root there is no bridge: this container has a loopback device only \
         (--network none avoids this message, --network host shares the host's network)"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_the_caller_go_over_those_of_the_image() {
        let image = Config {
            labels: [("a".into(), "1".into()), ("b".into(), "2".into())].into(),
            ..Config::default()
        };
        let labels = labels(&image, &["a=x=y".into(), "c".into()]);
        let found: Vec<_> = labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(found, ["a=x=y", "b=2", "c="]);
    }

    #[test]
    fn the_host_name_is_the_id_unless_it_is_shared() {
        let mut uts = UtsSettings::default();
        choose_hostname(&mut uts, "abc");
        assert_eq!(uts.hostname.as_deref(), Some("abc".as_ref()));
        let mut shared = UtsSettings {
            uts: NamespaceMode::Host,
            ..UtsSettings::default()
        };
        choose_hostname(&mut shared, "abc");
        assert_eq!(shared.hostname, None);
    }

    #[test]
    fn the_signal_to_stop_is_the_callers_then_the_images() {
        let image = Config {
            stop_signal: Some("QUIT".into()),
            ..Config::default()
        };
        assert_eq!(stop_signal(&image, None).unwrap(), "SIGQUIT");
        assert_eq!(stop_signal(&image, Some("2".into())).unwrap(), "SIGINT");
        let real_time = stop_signal(&image, Some("37".into())).unwrap();
        assert_eq!(real_time, "SIGRTMIN+3");
        assert_eq!(stop_signal(&Config::default(), None).unwrap(), "SIGTERM");
    }
}
