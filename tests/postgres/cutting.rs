//! What is told of a commit whose connection is cut, and what is there of it? A proxy cuts at a chosen message.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use ractor_persistence::adapters::postgres::{Config, PostgresAdapter};
use ractor_persistence::base::error::Error;
use ractor_persistence::persistence::StorageAdapter;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::server::Place;
use crate::world::*;

const NEVER: u8 = 0;
/// When a transaction begins.
const AT_BEGIN: u8 = 1;
/// Before the server hears of the `COMMIT`.
const BEFORE_COMMIT: u8 = 2;
/// When the server has answered to the `COMMIT`, and nobody has heard it.
const AFTER_COMMIT: u8 = 3;
/// When the server has answered to the `COMMIT`: something that is no answer is passed on in its place.
const GARBLED: u8 = 4;
/// When the server has answered to the `BEGIN`: the same.
const GARBLED_BEGIN: u8 = 5;
/// The same with a message that the protocol knows, out of its place.
const MISPLACED_BEGIN: u8 = 6;

/// Passes bytes on, until it is to cut; that happens once.
struct Proxy {
    port: u16,
    cut: Arc<AtomicU8>,
}

fn contains(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|window| window == text)
}

async fn pass(client: TcpStream, server: TcpStream, cut: Arc<AtomicU8>) {
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let (mut up, mut down) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut answered_last = false;
    loop {
        tokio::select! {
            read = from_client.read(&mut up) => {
                let Ok(length @ 1..) = read else { return };
                let bytes = &up[..length];
                let (begins, commits) = (contains(bytes, b"QUERYBEGIN") || contains(bytes, b"BEGIN "), contains(bytes, b"COMMIT\0"));
                let mode = cut.load(Ordering::SeqCst);
                if (mode == AT_BEGIN && begins) || (mode == BEFORE_COMMIT && commits) {
                    cut.store(NEVER, Ordering::SeqCst);
                    return;
                }
                answered_last = match mode {
                    AFTER_COMMIT | GARBLED => commits,
                    GARBLED_BEGIN | MISPLACED_BEGIN => begins,
                    _ => false,
                };
                if to_server.write_all(bytes).await.is_err() { return };
            }
            read = from_server.read(&mut down) => {
                let Ok(length @ 1..) = read else { return };
                let bytes = &down[..length];
                if answered_last {
                    if contains(bytes, b"COMMIT\0") || contains(bytes, b"BEGIN\0") {
                        let said: &[u8] = match cut.swap(NEVER, Ordering::SeqCst) {
                            GARBLED | GARBLED_BEGIN => b"\xff\0\0\0\x04",
                            // That a portal is suspended, which is no answer to anything that was asked.
                            MISPLACED_BEGIN => b"s\0\0\0\x04",
                            _ => b"",
                        };
                        let _gone = to_client.write_all(said).await;
                        return;
                    }
                    continue;
                }
                if to_client.write_all(bytes).await.is_err() { return };
            }
        }
    }
}

impl Proxy {
    async fn before(config: &Config) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let cut = Arc::new(AtomicU8::new(NEVER));
        let host = match &config.get_hosts()[0] {
            tokio_postgres::config::Host::Tcp(host) => host.clone(),
            other => panic!("the server is not reached over TCP: {other:?}"),
        };
        let target = (host, config.get_ports().first().copied().unwrap_or(5432));
        let cutting = Arc::clone(&cut);
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let server = TcpStream::connect(target.clone()).await.unwrap();
                tokio::spawn(pass(client, server, Arc::clone(&cutting)));
            }
        });
        Self { port, cut }
    }
}

#[tokio::test]
async fn a_commit_that_was_cut_off_is_unknown_only_if_it_may_be_there_and_counts_once_when_it_comes_again() {
    let place = Place::new();
    let direct: Config = place.url().parse().unwrap();
    let proxy = Proxy::before(&direct).await;
    let mut config = Config::new();
    config.host("127.0.0.1").port(proxy.port).ssl_mode(tokio_postgres::config::SslMode::Disable);
    config.user(direct.get_user().unwrap()).dbname(direct.get_dbname().unwrap());
    if let Some(password) = direct.get_password() {
        config.password(password);
    }
    let adapter = PostgresAdapter::connect_config(config, place.options()).await.unwrap();
    let beside = place.open().await.unwrap();
    let epoch = adapter.claim(&shop()).await.unwrap();
    adapter.commit(&storing(epoch, 1, &[(0, "before")])).await.unwrap();
    let mut expected = expect([(0, "before")]);
    for (id, (cut, known, there)) in (1_i64..).zip([
        (AT_BEGIN, true, false),
        (BEFORE_COMMIT, false, false),
        (AFTER_COMMIT, false, true),
        (GARBLED, false, true),
        (GARBLED_BEGIN, true, false),
        (MISPLACED_BEGIN, true, false),
    ]) {
        let commit = storing(epoch, u64::try_from(id).unwrap() + 1, &[(id, "once")]);
        proxy.cut.store(cut, Ordering::SeqCst);
        let error = adapter.commit(&commit).await.unwrap_err();
        assert_eq!(proxy.cut.load(Ordering::SeqCst), NEVER, "cut {cut} has happened");
        match known {
            true => assert!(matches!(error, Error::Transient { .. }), "cut {cut}: {error:?}"),
            false => assert!(matches!(error, Error::Unknown { .. }), "cut {cut}: {error:?}"),
        }
        assert_eq!(stored(&beside).await.contains_key(&id), there, "cut {cut}");
        adapter.commit(&commit).await.unwrap();
        expected.insert(id, "once".to_owned());
        assert_eq!(stored(&adapter).await, expected, "cut {cut}");
    }
}
