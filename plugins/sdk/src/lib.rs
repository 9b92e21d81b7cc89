//! The library for writing notification plugins in Rust.
//!
//! A plugin is a type that describes itself and handles one event at a time:
//!
//! ```no_run
//! use notify_plugin::{Delivery, Event, Handled, Info, Plugin, done, info};
//!
//! #[derive(serde::Deserialize)]
//! struct Order { order_id: String }
//!
//! struct Greeter;
//!
//! impl Plugin for Greeter {
//!     fn describe() -> Info {
//!         Info::new("greeter", env!("CARGO_PKG_VERSION"), "Says hello to every order")
//!             .subscribe("OrderCreated")
//!     }
//!
//!     fn handle(event: Event, _delivery: Delivery) -> Handled {
//!         let order: Order = event.data()?;
//!         info!(order_id = order.order_id, "hello");
//!         done()
//!     }
//! }
//!
//! notify_plugin::export!(Greeter);
//! ```
//!
//! [`http`] and [`mail`] send messages, with the operator's secrets from [`secret`]. The module `template` (feature
//! `template`) renders texts.
//!
//! Build the plugin as a `cdylib` for `wasm32-wasip2` (or `wasm32-unknown-unknown`), and put the `.wasm` file into the
//! host's plugin folder.

#![cfg_attr(not(test), allow(unsafe_code, reason = "the generated bindings call the host"))]

/// Bindings generated from the contract. The rest of this crate is a thin layer over them, and a plugin may use both.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic, clippy::unwrap_used, reason = "generated")]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "plugin",
        pub_export_macro: true,
        generate_all,
    });
}

mod clock;
pub mod http;
mod info;
mod logging;
pub mod mail;
#[cfg(feature = "template")]
pub mod template;
pub mod testing;
mod text;

use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

pub use crate::bindings::notify::plugin::log::Level;
pub use crate::bindings::notify::plugin::secrets;
pub use crate::bindings::notify::plugin::secrets::Secret;
pub use crate::bindings::notify::plugin::types::{Delivery, Event, Failure, HostError, Outcome, Rejection, Retry};
pub use crate::clock::now;
pub use crate::info::Info;
#[doc(hidden)]
pub use crate::logging::write;
pub use crate::text::{SNIPPET_CHARACTERS_MAX, snippet};

/// Result of handling one event.
pub type Handled = Result<Outcome, Failure>;

/// A plugin. See the crate's example.
pub trait Plugin {
    /// Describes the plugin and its requests. Called once at each load, before any grant is in force.
    fn describe() -> Info;

    /// Makes one attempt at one event. The instance lives for this call only. A panic counts as a failure that is
    /// worth another attempt.
    ///
    /// # Errors
    ///
    /// See [`retry`], [`reject`] and [`misconfigured`].
    fn handle(event: Event, delivery: Delivery) -> Handled;
}

/// Returns the outcome of a handled event.
pub fn done() -> Handled {
    Ok(Outcome::Done(None))
}

/// Returns the outcome of a handled event, with a note for the journal: a message id, an HTTP status.
pub fn done_with(note: impl Into<String>) -> Handled {
    Ok(Outcome::Done(Some(note.into())))
}

/// Returns the outcome of an event that needs no action.
pub fn skipped(reason: impl Into<String>) -> Handled {
    Ok(Outcome::Skipped(reason.into()))
}

/// Retries this event later, when the host sees fit.
pub fn retry(reason: impl Into<String>) -> Failure {
    Failure::Retry(Retry { reason: reason.into(), after: None })
}

/// Retries this event, but not before `millis` milliseconds have passed.
pub fn retry_after(reason: impl Into<String>, millis: u64) -> Failure {
    Failure::Retry(Retry { reason: reason.into(), after: Some(millis) })
}

/// Rejects this event, which will never work here. `code` is short and stable, `[a-z0-9-]`.
pub fn reject(code: impl Into<String>, reason: impl Into<String>) -> Failure {
    Failure::Reject(Rejection { reason: reason.into(), code: code.into() })
}

/// Reports that no event can work until an operator acts.
pub fn misconfigured(reason: impl Into<String>) -> Failure {
    Failure::Misconfigured(reason.into())
}

/// Returns the operator's settings for this plugin, including the schema's defaults.
///
/// # Errors
///
/// Returns [`Failure::Misconfigured`] if they do not fit the type.
pub fn config<T: DeserializeOwned>() -> Result<T, Failure> {
    serde_json::from_str(&bindings::notify::plugin::config::get_json())
        .map_err(|error| misconfigured(format!("[config]: {error}")))
}

/// Opens a secret that the operator granted by this name.
///
/// The plugin does not see the value. It can put it into a header ([`http::Request::secret_header`]) or make a
/// signature with it (`hmac_sha256`).
///
/// # Errors
///
/// Returns [`HostError::Denied`] without a grant.
pub fn secret(name: &str) -> Result<Secret, HostError> {
    secrets::open(name)
}

impl Event {
    /// Parses the data into a type of the plugin's own.
    ///
    /// # Errors
    ///
    /// Returns [`Failure::Reject`] with the code `bad-data` if the data does not fit.
    pub fn data<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_str(&self.data).map_err(|error| reject("bad-data", format!("the event's data: {error}")))
    }

    /// Returns the data as its original text, for use inside other JSON.
    ///
    /// # Errors
    ///
    /// Returns [`Failure::Reject`] with the code `bad-data` if the data is not valid JSON.
    pub fn raw_data(&self) -> Result<&RawValue, Failure> {
        serde_json::from_str(&self.data).map_err(|error| reject("bad-data", format!("the event's data: {error}")))
    }
}

/// Converts an error of the host into its usual outcome: temporary errors are retried, errors that an operator must
/// fix are `misconfigured`, and final ones are rejections.
impl From<HostError> for Failure {
    fn from(error: HostError) -> Self {
        match error {
            HostError::Denied(reason) => misconfigured(reason),
            HostError::Invalid(reason) => reject("invalid-request", reason),
            HostError::Refused(reason) => reject("refused", reason),
            HostError::Quota(reason) | HostError::Unavailable(reason) => retry(reason),
            HostError::Timeout => retry("the call ran out of time"),
        }
    }
}

/// Exports the type as the plugin of this crate.
#[macro_export]
macro_rules! export {
    ($plugin:ty) => {
        #[doc(hidden)]
        type __NotifyPluginExported = $crate::Exported<$plugin>;
        $crate::bindings::export!(__NotifyPluginExported with_types_in $crate::bindings);
    };
}

/// Connects the generated bindings with a [`Plugin`].
#[doc(hidden)]
pub struct Exported<P>(std::marker::PhantomData<P>);

impl<P: Plugin> bindings::exports::notify::plugin::metadata::Guest for Exported<P> {
    fn describe() -> bindings::exports::notify::plugin::metadata::PluginInfo {
        P::describe().into()
    }
}

impl<P: Plugin> bindings::exports::notify::plugin::handler::Guest for Exported<P> {
    fn handle(event: Event, delivery: Delivery) -> Handled {
        P::handle(event, delivery)
    }
}
