//! Programs as a user would call them.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// What a program said.
#[derive(Debug)]
pub struct Output {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
    line: String,
}

impl Output {
    /// The standard output of a program that ended well.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{}\n{}{}", self.line, self.stdout, self.stderr);
        self.stdout
    }

    /// The standard error of a program that refused.
    #[track_caller]
    pub fn refused(self) -> String {
        assert_ne!(self.code, 0, "{} was not refused:\n{}", self.line, self.stdout);
        self.stderr
    }
}

/// The project's root.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A pinned tool; `tools/build.sh` has seen to it that it is there.
pub fn tool(name: &str) -> PathBuf {
    let assets = std::env::var_os("KUBEBUILDER_ASSETS").map(|dir| Path::new(&dir).join(name));
    assets.filter(|path| path.exists()).unwrap_or_else(|| root().join(".tools/bin").join(name))
}

/// Runs a program in the project's root with `stdin`, and waits for its end.
pub async fn command(program: &Path, args: &[&str], envs: &[(&str, &str)], stdin: &str) -> Output {
    let line = format!("{} {}", program.file_name().unwrap().display(), args.join(" "));
    let mut child = Command::new(program)
        .args(args)
        .envs(envs.iter().copied())
        .current_dir(root())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|error| panic!("{line}: {error}"));
    let mut input = child.stdin.take().unwrap();
    // A program that does not read its input may be gone already.
    let _ = input.write_all(stdin.as_bytes()).await;
    drop(input);
    let done = child.wait_with_output().await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Output {
        code: done.status.code().unwrap_or(-1),
        stdout: text(done.stdout),
        stderr: text(done.stderr),
        line,
    }
}
