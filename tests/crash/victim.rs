//! The hold on a child process.

use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use crate::Backend;
use crate::account::Account;
use crate::data::State;
use crate::told::{ORDER, Order, Told};

/// Longer than anything takes.
const PATIENCE: Duration = Duration::from_secs(60);
const SIGKILL: i32 = 9;

/// A running child; it is killed when this is dropped.
pub(crate) struct Victim {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
    account: Account,
}

impl Victim {
    /// Starts a child that finds `base`.
    pub(crate) fn start(backend: Backend, order: &Order, base: State) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args([&format!("{}::child", backend.name), "--exact", "--ignored", "--nocapture"])
            .env(ORDER, serde_json::to_string(order).unwrap())
            .envs((backend.environment)())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { process, lines, account: Account::new(base) }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id().expect("it runs")
    }

    /// Hears until it has told enough.
    pub(crate) async fn until(&mut self, enough: impl Fn(&Account) -> bool) {
        while !enough(&self.account) {
            let line = timeout(PATIENCE, self.lines.next_line()).await.expect("the child goes on").unwrap();
            let line = line.expect("the child does not end by itself");
            if let Some(told) = Told::parse(&line) {
                self.account.hear(told);
            }
        }
    }

    /// Hears for a time.
    pub(crate) async fn during(&mut self, time: Duration) {
        // A line that is being read when the time is over is not lost.
        let _over = timeout(time, self.until(|_| false)).await;
    }

    /// Kills it, hears what is left in the pipe, and answers everything that it told.
    pub(crate) async fn kill(mut self) -> Account {
        self.process.start_kill().unwrap();
        let mut rest = Vec::new();
        while let Some(line) = timeout(PATIENCE, self.lines.next_line()).await.expect("the pipe ends").unwrap() {
            rest.extend(Told::parse(&line));
        }
        let status = self.process.wait().await.unwrap();
        assert_eq!(status.signal(), Some(SIGKILL), "the child died of something else: {status}");
        rest.into_iter().for_each(|told| self.account.hear(told));
        self.account
    }
}
