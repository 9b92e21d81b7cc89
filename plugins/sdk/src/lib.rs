//! What a notification plugin in Rust is written with.
//!
//! A plugin is a type that says what it is and handles one event at a time:
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
//! What plugins need to reach somebody is in [`http`] and [`mail`], with the operator's secrets by [`secret`]; texts by templates
//! are in `template` (feature `template`).
//!
//! Build it as a `cdylib` for `wasm32-wasip2` (or `wasm32-unknown-unknown`), and put the `.wasm`
//! file into the host's plugin folder.

#![cfg_attr(not(test), allow(unsafe_code, reason = "the generated bindings call the host"))]

/// What is generated from the contract. The rest of this crate is a thin layer over it, and a
/// plugin may use both.
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

/// What handling one event came to.
pub type Handled = Result<Outcome, Failure>;

/// A plugin. See the crate's example.
pub trait Plugin {
    /// What it is and what it would like. Called once at each load, before any grant is in force.
    fn describe() -> Info;

    /// One attempt at one event. The instance lives for this call only; a panic counts as a
    /// failure that is worth another attempt.
    ///
    /// # Errors
    ///
    /// See [`retry`], [`reject`] and [`misconfigured`].
    fn handle(event: Event, delivery: Delivery) -> Handled;
}

/// Handled.
pub fn done() -> Handled {
    Ok(Outcome::Done(None))
}

/// Handled, with something for the journal: a message id, an HTTP status.
pub fn done_with(note: impl Into<String>) -> Handled {
    Ok(Outcome::Done(Some(note.into())))
}

/// Looked at, and deliberately not acted on.
pub fn skipped(reason: impl Into<String>) -> Handled {
    Ok(Outcome::Skipped(reason.into()))
}

/// Try this event again later, when the host thinks best.
pub fn retry(reason: impl Into<String>) -> Failure {
    Failure::Retry(Retry { reason: reason.into(), after: None })
}

/// Try this event again, not before `millis` milliseconds have passed.
pub fn retry_after(reason: impl Into<String>, millis: u64) -> Failure {
    Failure::Retry(Retry { reason: reason.into(), after: Some(millis) })
}

/// This event will never work here. `code` is short and stable, `[a-z0-9-]`.
pub fn reject(code: impl Into<String>, reason: impl Into<String>) -> Failure {
    Failure::Reject(Rejection { reason: reason.into(), code: code.into() })
}

/// No event can work until an operator acts.
pub fn misconfigured(reason: impl Into<String>) -> Failure {
    Failure::Misconfigured(reason.into())
}

/// The operator's settings for this plugin, with its schema's defaults filled in.
///
/// # Errors
///
/// [`Failure::Misconfigured`], where they do not fit the type.
pub fn config<T: DeserializeOwned>() -> Result<T, Failure> {
    serde_json::from_str(&bindings::notify::plugin::config::get_json())
        .map_err(|error| misconfigured(format!("[config]: {error}")))
}

/// A secret that the operator granted by this name. The plugin does not see its value: it goes into a header
/// ([`http::Request::secret_header`]) or makes a signature (`hmac_sha256`).
///
/// # Errors
///
/// [`HostError::Denied`] without a grant.
pub fn secret(name: &str) -> Result<Secret, HostError> {
    secrets::open(name)
}

impl Event {
    /// The data as a type of the plugin's own.
    ///
    /// # Errors
    ///
    /// [`Failure::Reject`] with the code `bad-data`, where it does not fit.
    pub fn data<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_str(&self.data).map_err(|error| reject("bad-data", format!("the event's data: {error}")))
    }

    /// The data as the text that came, for use inside of other JSON.
    ///
    /// # Errors
    ///
    /// [`Failure::Reject`] with the code `bad-data`, where it is nothing that can stand there.
    pub fn raw_data(&self) -> Result<&RawValue, Failure> {
        serde_json::from_str(&self.data).map_err(|error| reject("bad-data", format!("the event's data: {error}")))
    }
}

/// A failure of the host's, as the outcome that it usually deserves: what may pass is tried
/// again, what an operator must change is `misconfigured`, what is final is a rejection.
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

/// Makes the type the plugin that this crate builds.
#[macro_export]
macro_rules! export {
    ($plugin:ty) => {
        #[doc(hidden)]
        type __NotifyPluginExported = $crate::Exported<$plugin>;
        $crate::bindings::export!(__NotifyPluginExported with_types_in $crate::bindings);
    };
}

/// Stands between the generated bindings and a [`Plugin`].
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
