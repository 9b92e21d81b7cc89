//! Declares the plugins' own queues. Several are declared together, so that no plugin gets events before the
//! others. If the broker refuses one, the others are still declared.

use broker::{Broker, BrokerError, QueueNames, Warning};

/// The result of declaring queues.
#[derive(Debug, Default)]
pub struct MadeQueues<'p> {
    /// Plugins whose queues exist.
    pub there: Vec<&'p str>,
    /// Plugins whose queues cannot be declared, each with the reason.
    pub refused: Vec<(&'p str, String)>,
    pub warnings: Vec<Warning>,
}

/// Declares the queues of these plugins. An error means that the session is lost.
pub async fn make<'p>(broker: &Broker, names: &QueueNames, plugins: &[&'p str]) -> Result<MadeQueues<'p>, BrokerError> {
    match broker.declare_plugins(names, plugins).await {
        Ok(warnings) => return Ok(MadeQueues { there: plugins.to_vec(), warnings, ..MadeQueues::default() }),
        Err(error @ BrokerError::Lost(_)) => return Err(error),
        Err(_) => {}
    }
    // Declare one by one, so that a refused queue does not hold back the others.
    let mut made = MadeQueues { warnings: broker.declare_plugins(names, &[]).await?, ..MadeQueues::default() };
    for plugin in plugins {
        match broker.declare_plugins(names, &[plugin]).await {
            Ok(warnings) => {
                made.there.push(plugin);
                made.warnings.extend(warnings);
            }
            Err(error @ BrokerError::Lost(_)) => return Err(error),
            // The queue exists from earlier. Use it, or events would pass by the plugin just because the
            // declaration is refused now.
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
