//! A board of tasks: a live query shows it whenever it changes, transactions move tasks from the backlog onto it, never
//! more of them than fit, and never to two places or none.
//!
//! ```text
//! cargo run --example task_board
//! ```
#![allow(clippy::print_stdout, reason = "an example tells what it does")]

use std::sync::{Arc, Mutex};

use ractor_persistence::base::error::{Error, Result};
use ractor_persistence::base::value::Value;
use ractor_persistence::bucket::{QueryContext, Retry};
use ractor_persistence::record;
use ractor_persistence::records::{BucketDefinition, Direction, Field, Filter, Query};
use ractor_persistence::store::Store;

/// Most tasks that are worked on at a time.
const AT_A_TIME: usize = 3;

fn tasks(name: &str) -> BucketDefinition {
    BucketDefinition::new(name)
        .key("id")
        .field("id", Field::int())
        .field("title", Field::string().required().min_length(1))
        .field("priority", Field::int().min(1).max(5).default(3))
        .field("assignee", Field::string())
        .index(["priority"])
}

/// Moves the most urgent task from the backlog onto the board, for somebody; none where the board is full or nothing is
/// left to do.
async fn take(store: &Store, assignee: &str) -> Result<Option<i64>> {
    let assignee = Arc::<str>::from(assignee);
    store
        .transaction(move |tx| {
            let assignee = Arc::clone(&assignee);
            async move {
                let (backlog, board) = (tx.bucket("backlog")?, tx.bucket("board")?);
                if board.count(Filter::all()).await? >= AT_A_TIME {
                    return Ok(None);
                }
                let urgent = Query::all().order_by("priority", Direction::Ascending);
                let Some(task) = backlog.find_one(urgent).await? else { return Ok(None) };
                backlog.delete(task.key()).await?;
                let title = task.get("title").cloned().unwrap_or_default();
                let priority = task.get("priority").cloned().unwrap_or_default();
                let mut taken = record! { "title": title, "priority": priority, "assignee": &*assignee };
                taken.insert("id", task.key());
                board.insert(taken).await?;
                Ok::<_, Error>(task.get("id").and_then(Value::as_i64))
            }
        })
        .retry(Retry::default().with_attempts(100))
        .await
}

/// The board as it is shown: a line per task, the most urgent first.
async fn shown(query: QueryContext) -> Result<Vec<String>> {
    let tasks = query.bucket("board")?.find(Query::all().order_by("priority", Direction::Ascending)).await?;
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or("?").to_owned();
    Ok(tasks.iter().map(|task| format!("{}: {}", text(task.get("assignee")), text(task.get("title")))).collect())
}

#[tokio::main]
async fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let store = Store::builder("tasks").start().await?;
    let backlog = store.define_bucket(tasks("backlog")).await?;
    let board = store.define_bucket(tasks("board")).await?;
    let work = [("write the guide", 2), ("fix the leak", 1), ("paint it green", 5), ("measure", 3), ("tidy up", 4)];
    let all = work.iter().zip(1..).map(|((title, priority), id)| {
        record! { "id": id, "title": *title, "priority": *priority }
    });
    assert_eq!(backlog.insert_many(all).await?.len(), work.len());

    let live = store.live(shown).await?;
    assert!(live.current().is_empty());
    let pictures = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&pictures);
    live.on_change(move |board: Arc<Vec<String>>| {
        println!("the board: {board:?}");
        if let Ok(mut seen) = seen.lock() {
            seen.push(board);
        }
    });

    // Everybody takes what is most urgent, at the same time.
    let takers = ["Ada", "Bob", "Eve", "Max", "Zoe"].map(|assignee| {
        let store = store.clone();
        tokio::spawn(async move { take(&store, assignee).await })
    });
    let mut taken = Vec::new();
    for taker in takers {
        taken.extend(taker.await??);
    }
    taken.sort_unstable();
    assert_eq!(taken, [1, 2, 4], "the three most urgent tasks, each once");
    assert_eq!(board.count(Filter::all()).await?, AT_A_TIME);
    assert_eq!(backlog.count(Filter::all()).await?, work.len() - AT_A_TIME);

    board.delete(2).await?;
    println!("The leak is fixed.");
    assert_eq!(take(&store, "Ada").await?, Some(5));
    store.settle().await;
    let last = live.current();
    let titles: Vec<&str> = last.iter().filter_map(|line| line.split_once(": ")).map(|(_, title)| title).collect();
    assert_eq!(titles, ["write the guide", "measure", "tidy up"], "the picture is the board's");
    let pictures = pictures.lock().map_err(|_| "a callback panicked")?.clone();
    assert_eq!(pictures.last(), Some(&last));
    assert!(pictures.iter().all(|board| board.len() <= AT_A_TIME), "nobody ever saw more than fit");
    println!("{} pictures were shown, the last of them with {titles:?}.", pictures.len());
    store.stop().await?;
    Ok(())
}
