//! `demo` as a new user meets it: one command, a timeline, and nothing left behind.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use tempfile::TempDir;

use crate::process::{ended, processes_of, program, run, signal, text, until};

/// Columns of the widest line.
const WIDTH: usize = 120;

async fn nothing_is_left(folder: &TempDir) {
    until("everything that the demo started to end", || processes_of(folder.path()).is_empty()).await;
    let left: Vec<_> = std::fs::read_dir(folder.path()).expect("the folder").collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn the_demo_shows_every_story_and_ends_well() {
    let folder = TempDir::new().expect("a folder");
    let output = run(program(&["demo"]).env("TMPDIR", folder.path()));
    let told = text(&output.stdout);
    assert!(output.status.success(), "{told}\n{}", text(&output.stderr));
    for expected in [
        "POST /v1/charges  renewal-1",
        "→ 422 SoftDeclined",
        "recoveredBy schedule",
        "→ 422 HardDeclined",
        "charge.action_required  update_payment_method, updateUrl",
        "recoveredBy instrument_update",
        "charge.abandoned  charge_permission_closed",
        "signed with another key",
        "→ 403",
        "SIGKILL to the service",
        "known key: the first answer again, no new charge",
        "→ 503",
        "double charges: 0",
        "checks hold",
    ] {
        assert!(told.contains(expected), "{expected:?} is missing in\n{told}");
    }
    assert!(!told.contains('✗'), "{told}");
    assert!(!told.contains('\u{1b}'), "colours are for terminals");
    let wide: Vec<&str> = told.lines().filter(|line| line.chars().count() > WIDTH).collect();
    assert!(wide.is_empty(), "{wide:?}");
    nothing_is_left(&folder).await;
}

#[tokio::test]
async fn an_interrupted_demo_leaves_nothing_behind() {
    let folder = TempDir::new().expect("a folder");
    let mut child =
        program(&["demo"]).env("TMPDIR", folder.path()).stdout(Stdio::piped()).spawn().expect("the program runs");
    let mut lines = BufReader::new(child.stdout.take().expect("standard output")).lines();
    let started = lines.find(|line| line.as_ref().is_ok_and(|line| line.contains("POST /v1/charges")));
    assert!(started.is_some(), "the first story begins");
    assert!(processes_of(folder.path()).len() >= 3, "demo, redis-server and serve");
    signal("INT", child.id());
    assert_eq!(ended(&mut child).await.code(), Some(130));
    nothing_is_left(&folder).await;
}
