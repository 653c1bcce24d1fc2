//! Every page in a real browser: in both themes, at the width of a desk and of
//! a telephone.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::json;

use super::Page;
use super::browser::Browser;

/// The names of mdBook's themes.
const THEMES: [&str; 2] = ["light", "navy"];

/// The screens: name, width, height.
const SCREENS: [(&str, u32, u32); 2] = [("desk", 1280, 900), ("phone", 390, 844)];

/// The word that the search must find.
const SEARCH: &str = "pivot_root";

/// The result of a look at the pages.
#[derive(Debug, Default)]
pub struct Look {
    /// The number of views.
    pub views: usize,
    /// The faults, one per line.
    pub complaints: Vec<String>,
}

/// Opens every page below `built` and looks for faults. If `shots` is given,
/// saves a picture of each view there. `None` if there is no browser.
pub fn look(built: &Path, pages: &[Page], shots: Option<&Path>) -> Result<Option<Look>> {
    let Some(mut browser) = Browser::start()? else {
        return Ok(None);
    };
    let mut look = Look::default();
    for (screen, width, height) in SCREENS {
        browser.call(
            "Emulation.setDeviceMetricsOverride",
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 }),
        )?;
        for theme in THEMES {
            for page in pages {
                let file = built.join(page.path.replace(".md", ".html"));
                let view = format!("{} {theme} {screen}", page.name());
                let found = one(&mut browser, &file, theme).with_context(|| view.clone())?;
                look.views += 1;
                let complaints = found.into_iter().map(|what| format!("{view}: {what}"));
                look.complaints.extend(complaints);
                if let Some(dir) = shots {
                    let place = dir.join(view.replace(' ', "-")).with_extension("png");
                    picture(&mut browser, &place, width)?;
                }
            }
        }
    }
    look.complaints.extend(search(&mut browser, built)?);
    Ok(Some(look))
}

fn open(browser: &mut Browser, url: &str) -> Result<()> {
    browser.forget();
    browser.call("Page.navigate", json!({ "url": url }))?;
    browser.wait_for("Page.loadEventFired")
}

/// The faults of a page in a theme.
fn one(browser: &mut Browser, file: &Path, theme: &str) -> Result<Vec<String>> {
    let url = format!("file://{}", file.display());
    open(browser, &url)?;
    let now = browser.evaluate("localStorage.getItem('mdbook-theme')")?;
    if now != theme {
        browser.evaluate(&format!("localStorage.setItem('mdbook-theme', '{theme}')"))?;
        open(browser, &url)?;
    }
    let mut complaints = browser.errors();
    let told = browser.evaluate(LOOK)?;
    for line in told.as_array().into_iter().flatten() {
        complaints.push(line.as_str().unwrap_or_default().to_owned());
    }
    let class = browser.evaluate("document.documentElement.className")?;
    if !class.as_str().unwrap_or_default().contains(theme) {
        complaints.push(format!("the theme is not {theme} but {class}"));
    }
    Ok(complaints)
}

/// A script that lists the faults of a page: boxes wider than the window,
/// diagrams without a size, and text outside its diagram or in the colour of
/// its background.
const LOOK: &str = r#"(() => {
    const wrong = [];
    const width = document.documentElement.clientWidth;
    if (document.documentElement.scrollWidth > width)
        wrong.push(`the page is ${document.documentElement.scrollWidth} wide, the window ${width}`);
    for (const box of document.querySelectorAll('main > *')) {
        const { right } = box.getBoundingClientRect();
        if (right > width + 1) wrong.push(`<${box.tagName} class="${box.className}"> ends at ${right} of ${width}`);
    }
    for (const svg of document.querySelectorAll('svg.diagram')) {
        const { width: w, height: h } = svg.getBoundingClientRect();
        if (w < 200 || h < 80) wrong.push(`a diagram is ${w} by ${h}`);
        const view = svg.viewBox.baseVal;
        for (const text of svg.querySelectorAll('text')) {
            const b = text.getBBox();
            if (b.x < view.x || b.x + b.width > view.x + view.width)
                wrong.push(`“${text.textContent}” leaves its diagram`);
            if (getComputedStyle(text).fill === getComputedStyle(document.body).backgroundColor)
                wrong.push(`“${text.textContent}” is invisible`);
        }
    }
    return wrong;
})()"#;

fn picture(browser: &mut Browser, place: &Path, width: u32) -> Result<()> {
    let height = browser.evaluate("Math.min(document.documentElement.scrollHeight, 9000)")?;
    let clip = json!({ "x": 0, "y": 0, "width": width, "height": height, "scale": 1 });
    let shot = browser.call(
        "Page.captureScreenshot",
        json!({ "captureBeyondViewport": true, "clip": clip }),
    )?;
    let data = shot["data"].as_str().context("no picture")?;
    fs::write(place, decode(data)).with_context(|| format!("write {}", place.display()))
}

/// Decodes Base64 (RFC 4648), in which the protocol sends a picture.
fn decode(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    let (mut bits, mut count) = (0u32, 0);
    for byte in text.bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => continue,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    bytes
}

/// The faults of the book's own search: it must find the word.
fn search(browser: &mut Browser, built: &Path) -> Result<Vec<String>> {
    open(
        browser,
        &format!("file://{}/index.html?search={SEARCH}", built.display()),
    )?;
    let found = browser.evaluate(
        r#"new Promise(resolve => {
            let tries = 0;
            const look = () => {
                const found = document.querySelectorAll('#mdbook-searchresults li, #searchresults li').length;
                if (found || ++tries > 60) resolve(found); else setTimeout(look, 100);
            };
            look();
        })"#,
    )?;
    let mut complaints = browser.errors();
    if found.as_u64().unwrap_or_default() == 0 {
        complaints.push(format!("the search finds no {SEARCH}"));
    }
    Ok(complaints)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_decoded() {
        assert_eq!(decode("Zm9vYmE="), b"fooba");
        assert_eq!(decode("Zm9vYmFy"), b"foobar");
    }
}
