//! Chromium without a window: screenshots of a page, and what a page says of itself.
//!
//! To look into a page whose policy lets no other script run, a page of the test's own holds it in a frame of a given
//! width, hears of violations and errors there, and works its controls.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, PoisonError},
};

use serde_json::Value;

const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome-stable", "google-chrome"];
/// One browser at a time: each has several processes.
static ONE: Mutex<()> = Mutex::new(());
const WRAPPER: &str = include_str!("wrapper.html");

pub(crate) struct Browser {
    program: PathBuf,
    /// Below target/, so that pictures can be looked at.
    folder: PathBuf,
}

impl Browser {
    /// The program that the variable `CHROMIUM` names, or the first known one on the path.
    pub(crate) fn find() -> Option<Self> {
        let folders = env::var_os("PATH").unwrap_or_default();
        let known = || {
            let programs = env::split_paths(&folders).flat_map(|folder| NAMES.map(|name| folder.join(name)));
            programs.into_iter().find(|program| program.is_file())
        };
        let Some(program) = env::var_os("CHROMIUM").map(PathBuf::from).or_else(known) else {
            eprintln!("SKIPPED: the page was not tried in a browser: no {} on the path", NAMES.join(", "));
            return None;
        };
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("report");
        fs::create_dir_all(&folder).expect("the folder for pictures can be made");
        Some(Self { program, folder })
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.join(name);
        fs::write(&path, text).expect("a page can be written");
        path
    }

    /// Takes a picture, and answers what the console said.
    pub(crate) fn screenshot(
        &self,
        page: &Path,
        name: &str,
        (width, height): (u32, u32),
        dark: bool,
    ) -> Vec<String> {
        let picture = self.folder.join(name);
        let _ = fs::remove_file(&picture);
        let output = self.run(
            page,
            &[
                &format!("--screenshot={}", picture.display()),
                &format!("--window-size={width},{height}"),
                &format!("--blink-settings=preferredColorScheme={}", if dark { 0 } else { 1 }),
                "--hide-scrollbars",
            ],
        );
        assert!(picture.is_file(), "no picture was taken: {}", output.1);
        output.1.lines().filter(|line| line.contains("CONSOLE")).map(str::to_owned).collect()
    }

    /// Takes a picture of a page in a frame: windows have a least width, frames have none.
    pub(crate) fn screenshot_in_frame(
        &self,
        html: &str,
        name: &str,
        (width, height): (u32, u32),
        theme: &str,
    ) {
        let page = self.wrapped(&format!("{name}.html"), html, &[(width, theme)], "look");
        self.screenshot(&page, name, (width.max(500), height), theme == "dark");
    }

    /// What the wrapper found out about the page in each of the cases: widths and themes.
    pub(crate) fn inspect(&self, name: &str, html: &str, cases: &[(u32, &str)]) -> Vec<Value> {
        let page = self.wrapped(&format!("{name}.html"), html, cases, "inspect");
        let (dom, messages) = self.run(&page, &["--dump-dom", "--window-size=1700,1200"]);
        let found =
            dom.split_once("id=\"found-out\" hidden=\"\">").and_then(|(_, rest)| rest.split_once("</pre>"));
        let (found, _) = found.unwrap_or_else(|| panic!("the wrapper said nothing: {messages}"));
        let text = found.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    fn wrapped(&self, name: &str, html: &str, cases: &[(u32, &str)], task: &str) -> PathBuf {
        let quoted = html.replace('&', "&amp;").replace('"', "&quot;");
        let cases = serde_json::to_string(cases).expect("cases are plain data");
        let page = WRAPPER.replace("CASES", &cases).replace("TASK", task).replace("PAGE", &quoted);
        self.write(name, &page)
    }

    /// Standard output and standard error.
    fn run(&self, page: &Path, arguments: &[&str]) -> (String, String) {
        // A profile of its own for each: Chromium locks the profile that it uses.
        let profile = page.with_extension("profile");
        let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let output = Command::new(&self.program)
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
            ])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-extensions"])
            .args(["--enable-logging=stderr", "--virtual-time-budget=10000"])
            .arg(format!("--user-data-dir={}", profile.display()))
            .args(arguments)
            .arg(format!("file://{}", page.display()))
            .output()
            .expect("the browser starts");
        let _ = fs::remove_dir_all(profile);
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{}", text(&output.stderr));
        (text(&output.stdout), text(&output.stderr))
    }
}
