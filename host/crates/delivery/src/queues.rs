//! The queues that plugins have for themselves: made for several plugins at once, so that none gets events before the
//! others do, and where the broker refuses one, without it.

use broker::{Broker, BrokerError, QueueNames, Warning};

/// The result of making queues.
#[derive(Debug, Default)]
pub struct Made<'p> {
    /// Plugins whose queues are there.
    pub there: Vec<&'p str>,
    /// Plugins whose queues cannot be made, and why.
    pub refused: Vec<(&'p str, String)>,
    pub warnings: Vec<Warning>,
}

/// An error means that the session is lost.
pub async fn make<'p>(broker: &Broker, names: &QueueNames, plugins: &[&'p str]) -> Result<Made<'p>, BrokerError> {
    match broker.declare_plugins(names, plugins).await {
        Ok(warnings) => return Ok(Made { there: plugins.to_vec(), warnings, ..Made::default() }),
        Err(error @ BrokerError::Lost(_)) => return Err(error),
        Err(_) => {}
    }
    // One whose queue cannot be made must not keep away the others.
    let mut made = Made { warnings: broker.declare_plugins(names, &[]).await?, ..Made::default() };
    for plugin in plugins {
        match broker.declare_plugins(names, &[plugin]).await {
            Ok(warnings) => {
                made.there.push(plugin);
                made.warnings.extend(warnings);
            }
            Err(error @ BrokerError::Lost(_)) => return Err(error),
            // The plugin has had one, and its events must not pass it by because a declaration is refused now.
            Err(error) if is_there(broker, &names.plugin(plugin)).await? => {
                made.there.push(plugin);
                let queue = names.plugin(plugin);
                made.warnings.push(Warning(format!("queue {queue:?} is used as it is: {error}")));
            }
            Err(error) => made.refused.push((plugin, error.to_string())),
        }
    }
    Ok(made)
}

async fn is_there(broker: &Broker, queue: &str) -> Result<bool, BrokerError> {
    match broker.inspect(queue).await {
        Ok(state) => Ok(state.is_some()),
        Err(error @ BrokerError::Lost(_)) => Err(error),
        Err(_) => Ok(false),
    }
}
