//! A real Chromium without a window, driven over WebDriver: a dozen calls of plain HTTP, so that no driver
//! library is needed.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use reqwest::blocking::Client;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::PATIENCE;

/// A browser with one page. Ends when dropped.
pub struct Browser {
    driver: Child,
    client: Client,
    session: String,
    _profile: TempDir,
}

/// The key that WebDriver names elements by.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

impl Browser {
    pub fn start() -> Self {
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("cargo xtask setup installs chromedriver");
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = lines
            .find_map(|line| {
                let line = line.unwrap();
                line.split_once("successfully on port ").map(|(_, port)| port.trim_end_matches('.').to_owned())
            })
            .unwrap();
        let profile = TempDir::new().unwrap();
        let client = super::client().timeout(PATIENCE).build().unwrap();
        // Nothing outside of this machine is asked for anything.
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--hide-scrollbars",
            "--window-size=1200,1000",
        ];
        let mut all: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        all.push(format!("--user-data-dir={}", profile.path().display()));
        let options = json!({ "args": all, "prefs": { "download.prompt_for_download": false } });
        let wanted = json!({ "capabilities": { "alwaysMatch": { "goog:chromeOptions": options } } });
        let base = format!("http://127.0.0.1:{port}");
        let begun: Value = client.post(format!("{base}/session")).json(&wanted).send().unwrap().json().unwrap();
        let id = begun["value"]["sessionId"].as_str().unwrap_or_else(|| panic!("{begun}"));
        Self { driver, session: format!("{base}/session/{id}"), client, _profile: profile }
    }

    /// The value, or an error by its name.
    fn attempt(&self, path: &str, body: &Value) -> Result<Value, Value> {
        let answered: Value =
            self.client.post(format!("{}/{path}", self.session)).json(body).send().unwrap().json().unwrap();
        let value = answered["value"].clone();
        if value["error"].is_null() { Ok(value) } else { Err(value) }
    }

    #[track_caller]
    fn call(&self, path: &str, body: &Value) -> Value {
        self.attempt(path, body).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    fn ask(&self, path: &str) -> Value {
        let answered: Value = self.client.get(format!("{}/{path}", self.session)).send().unwrap().json().unwrap();
        answered["value"].clone()
    }

    #[track_caller]
    pub fn go(&self, url: &str) {
        self.call("url", &json!({ "url": url }));
    }

    pub fn url(&self) -> String {
        self.ask("url").as_str().unwrap_or_default().to_owned()
    }

    /// The text of the page as a person sees it.
    pub fn text(&self) -> String {
        let script = "return document.body ? document.body.innerText : ''";
        // A page that goes away while it is asked says nothing.
        let said = self.attempt("execute/sync", &json!({ "script": script, "args": [] })).unwrap_or_default();
        said.as_str().unwrap_or_default().to_owned()
    }

    /// Runs a script in the page, as a test may and the page's own policy does not forbid.
    #[track_caller]
    pub fn run(&self, script: &str) -> Value {
        self.call("execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// Does something to an element, once it is there: a page may just be replaced by the next one.
    #[track_caller]
    fn act(&self, using: &str, value: &str, action: &str, body: &Value) {
        let begun = Instant::now();
        loop {
            let found = self.attempt("element", &json!({ "using": using, "value": value }));
            let done = found.and_then(|found| {
                let element = found[ELEMENT].as_str().unwrap();
                self.attempt(&format!("element/{element}/{action}"), body)
            });
            let Err(error) = done else { return };
            let passes = ["stale element reference", "no such element"].contains(&error["error"].as_str().unwrap());
            assert!(
                passes && begun.elapsed() < PATIENCE,
                "{action} of {value}: {error}; the page says\n{}",
                self.text()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Presses what a style selector finds.
    #[track_caller]
    pub fn press(&self, css: &str) {
        self.act("css selector", css, "click", &json!({}));
    }

    /// Presses the link or button whose text begins so.
    #[track_caller]
    pub fn press_text(&self, text: &str) {
        let path = format!("//*[self::a or self::button][starts-with(normalize-space(.), '{text}')]");
        self.act("xpath", &path, "click", &json!({}));
    }

    #[track_caller]
    pub fn fill(&self, css: &str, text: &str) {
        self.act("css selector", css, "value", &json!({ "text": text }));
    }

    /// Keys as from a keyboard, to what has the focus.
    #[track_caller]
    pub fn keys(&self, keys: &str) {
        let mut actions = Vec::new();
        for key in keys.chars() {
            actions.push(json!({ "type": "keyDown", "value": key.to_string() }));
            actions.push(json!({ "type": "keyUp", "value": key.to_string() }));
        }
        self.call("actions", &json!({ "actions": [{ "type": "key", "id": "keyboard", "actions": actions }] }));
    }

    /// The accessible name of what has the focus.
    pub fn focus(&self) -> String {
        let script = "const e = document.activeElement; return (e.labels && e.labels[0] ? e.labels[0].innerText : \
                      e.innerText || e.getAttribute('aria-label') || '').replace(/\\s+/g, ' ').trim()";
        self.run(script).as_str().unwrap_or_default().to_owned()
    }

    /// Waits until the page says something.
    #[track_caller]
    pub fn wait_for_text(&self, text: &str) {
        let begun = Instant::now();
        while !self.text().contains(text) {
            assert!(begun.elapsed() < PATIENCE, "{text:?} does not come; the page says\n{}", self.text());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// A command of the browser's own protocol.
    #[track_caller]
    pub fn protocol(&self, command: &str, parameters: Value) -> Value {
        self.call("goog/cdp/execute", &json!({ "cmd": command, "params": parameters }))
    }

    /// Names and roles as a screen reader hears them.
    pub fn spoken(&self) -> Vec<(String, String)> {
        let tree = self.protocol("Accessibility.getFullAXTree", json!({}));
        let text = |node: &Value, field: &str| node[field]["value"].as_str().unwrap_or_default().to_owned();
        let nodes = tree["nodes"].as_array().cloned().unwrap_or_default();
        nodes
            .iter()
            .filter(|node| node["ignored"] == false)
            .map(|node| (text(node, "role"), text(node, "name")))
            .collect()
    }

    /// Light or dark, as the person's system has it.
    pub fn scheme(&self, scheme: &str) {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.protocol("Emulation.setEmulatedMedia", json!({ "features": features }));
    }

    /// Where downloads go.
    pub fn downloads_to(&self, folder: &std::path::Path) {
        self.protocol("Browser.setDownloadBehavior", json!({ "behavior": "allow", "downloadPath": folder }));
    }

    /// The size of the window, in CSS pixels; a phone's is narrow.
    pub fn window(&self, width: u32, height: u32) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.protocol("Emulation.setDeviceMetricsOverride", size);
    }

    /// A picture of the page for the docs, when somebody asks for pictures (`COPAL_SCREENSHOTS` names a
    /// folder).
    pub fn picture(&self, name: &str) {
        let Some(folder) = std::env::var_os("COPAL_SCREENSHOTS") else { return };
        let picture = self.protocol("Page.captureScreenshot", json!({ "format": "png", "optimizeForSpeed": false }));
        let bytes = base64(picture["data"].as_str().unwrap());
        std::fs::write(std::path::Path::new(&folder).join(name), bytes).unwrap();
    }

    /// What the page complained of: scripts that failed, things that the policy forbade.
    pub fn complaints(&self) -> Vec<String> {
        let log = self.call("se/log", &json!({ "type": "browser" }));
        let lines = log.as_array().cloned().unwrap_or_default();
        lines.iter().map(|line| line["message"].as_str().unwrap_or_default().to_owned()).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It ends with its driver, which may have ended already.
        let _ = self.client.delete(&self.session).send();
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

fn base64(text: &str) -> Vec<u8> {
    let value = |byte: u8| match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    for group in text.as_bytes().chunks(4) {
        let digits = group.iter().filter(|&&byte| byte != b'=').count();
        let bits =
            group.iter().fold(0u32, |bits, &byte| bits << 6 | u32::from(if byte == b'=' { 0 } else { value(byte) }));
        out.extend(&bits.to_be_bytes()[1..digits]);
    }
    out
}
