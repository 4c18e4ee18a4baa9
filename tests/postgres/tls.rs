//! When is a connection encrypted, and whom does it trust?

use ractor_persistence::adapters::postgres::PostgresAdapter;
use ractor_persistence::base::error::Error;
use ractor_persistence::persistence::StorageAdapter;

use crate::server::{Place, Server};
use crate::world::*;

/// Set for the process in which the system's roots are others.
const CHILD: &str = "RACTOR_PERSISTENCE_TLS_CHILD";

async fn connect(place: &Place, mode: &str) -> Result<PostgresAdapter, Error> {
    let url = format!("{}?{mode}", place.url());
    PostgresAdapter::connect_with(url, place.options()).await
}

/// Whether the adapter's sessions are encrypted.
async fn encrypted(place: &Place) -> Vec<bool> {
    let sql =
        "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'ractor-persistence'";
    place.client().await.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn prefer_encrypts_without_asking_who_it_is_and_require_asks() {
    if let Ok(url) = std::env::var(CHILD) {
        let place = Place::on(&url);
        let adapter = connect(&place, "sslmode=require").await.unwrap();
        assert_eq!(encrypted(&place).await, [true]);
        let epoch = adapter.claim(&shop()).await.unwrap();
        adapter.commit(&storing(epoch, 1, &[(1, "encrypted")])).await.unwrap();
        assert_eq!(stored(&adapter).await, expect([(1, "encrypted")]));
        adapter.close(&shop()).await.unwrap();
        return;
    }
    let server = Server::start();
    let place = Place::on(&server.url);
    for (mode, expected) in [("sslmode=disable", false), ("sslmode=prefer", true), ("application_name=", true)] {
        let adapter = connect(&place, mode).await.unwrap();
        if mode.starts_with("ssl") {
            assert_eq!(encrypted(&place).await, [expected], "{mode}");
        }
        adapter.claim(&shop()).await.unwrap();
        adapter.close(&shop()).await.unwrap();
    }
    let error = connect(&place, "sslmode=require").await.unwrap_err();
    assert!(matches!(error, Error::Permanent { .. }), "{error:?}");
    assert!(told(&error).contains("certificate"), "{}", told(&error));

    // The same where the system trusts who made the certificate.
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "tls::prefer_encrypts_without_asking_who_it_is_and_require_asks", "--nocapture"]);
    child.env(CHILD, &server.url).env("SSL_CERT_FILE", server.authority());
    let output = child.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
