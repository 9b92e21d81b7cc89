//! Edits a dead letter's event by hand and replaces it with the edited event.

use anyhow::{Context as _, bail};
use broker::BrokerUrl;
use config::HostConfig;
use dead_letters::browse::{Letter, Need};
use dead_letters::edited_event::{EditedEvent, Original};
use dead_letters::{Selection, replay};
use event::clock::now;
use uuid::Uuid;

use crate::cli::command::say;
use crate::cli::confirm::{ConfirmAnswer, confirm};
use crate::cli::dead_letters::editor::Draft;
use crate::cli::dead_letters::{find, find_one};

pub(super) async fn edit(config: &HostConfig, url: &BrokerUrl, id: &str) -> anyhow::Result<()> {
    let (browser, letter) = find_one(config, url, id).await?;
    // Hold nothing while the user edits: other commands can see the letter, and RabbitMQ closes no consumer.
    browser.close().await?;
    let Letter { summary, delivery_headers, message, .. } = letter;
    let original = Original { delivery_headers: &delivery_headers, message: &message, rules: &config.rules };
    let before = original.text()?;
    let draft = Draft::new(&before)?;
    let edited = loop {
        let after = draft.open()?;
        if after.trim() == before.trim() {
            say!("nothing was changed: the letter stays as it is");
            return Ok(());
        }
        match original.succeed(after.trim(), &Uuid::now_v7().to_string(), now()) {
            Ok(edited) => break edited,
            Err(problem) => {
                let question = format!("{problem}; edit it again?");
                if !matches!(confirm(&question).await, ConfirmAnswer::Yes) {
                    bail!("{problem}; the letter stays as it is, and what you wrote is in {}", draft.keep()?.display());
                }
            }
        }
    };
    if let Err(error) = put_in_place(config, url, &summary.id, &edited).await {
        return Err(error).with_context(|| match draft.keep() {
            Ok(path) => format!("it was not replaced; what you wrote is in {}", path.display()),
            Err(_) => "it was not replaced".to_owned(),
        });
    }
    say!("replaced {} by an event with what you wrote", summary.id);
    Ok(())
}

async fn put_in_place(config: &HostConfig, url: &BrokerUrl, id: &str, edited: &EditedEvent) -> anyhow::Result<()> {
    let found = find(config, url, &Selection::of_id(id), Need::Summary).await?;
    let Some((browser, mut letters)) = found else { bail!("the queue of the dead letters is gone") };
    let Some(letter) = letters.pop() else {
        browser.close().await?;
        bail!("dead letter {id} is not there any more: somebody else replayed, edited or deleted it");
    };
    if let Err(error) = replay::one(&browser.broker, config, &edited.delivery_headers, &edited.message).await {
        // Report the reason rather than an error from closing.
        let _ = browser.close().await;
        return Err(error);
    }
    letter.remove();
    browser.close().await.context("the event is replaced, but the old one may be among the dead letters again")
}
