//! A call of a guest. Whatever the guest does, or the host code that it calls, ends here and becomes a failure of
//! this call.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use wasmtime::Store;

use crate::engine::Engine;
use crate::failure::PluginFailure;
use crate::instance::Guest;
use crate::usage::Usage;

/// Makes one call within `time`, and returns what it used. `held` comes back when the call has ended for good. It is
/// dropped with an abandoned call, and after a panic.
pub(super) async fn make<T, Held, Call>(
    engine: &Engine,
    mut store: Store<Guest>,
    time: Duration,
    held: Held,
    call: Call,
) -> (Result<T, PluginFailure>, Usage, Option<Held>)
where
    T: Send + 'static,
    Held: Send + 'static,
    Call: for<'a> FnOnce(&'a mut Store<Guest>) -> BoxFuture<'a, wasmtime::Result<T>> + Send + 'static,
{
    let running = engine.running();
    let (log, wants_background) = (store.data().host.log.clone(), store.data().wants_background());
    let call = async move {
        let (held, _running) = (held, running);
        let answer = match tokio::time::timeout(time, call(&mut store)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(PluginFailure::of(&error, store.data())),
            Err(_) => Err(PluginFailure::TimedOut(time)),
        };
        (answer, Usage::of(store.data_mut()), Some(held))
    };
    // Unwind safety holds because nobody uses the store after a panic.
    let call = AssertUnwindSafe(call).catch_unwind().boxed();
    let ended = engine.background.run(call, || wants_background.load(Ordering::Relaxed)).await;
    log.close();
    let ended = ended.unwrap_or_else(|error| Err(Box::new(error.to_string())));
    ended.unwrap_or_else(|panic| (Err(PluginFailure::of_panic(panic)), Usage::default(), None))
}

#[cfg(test)]
mod tests {
    use config::Limits;

    use super::*;
    use crate::capability::CallContext;
    use crate::capability::PluginLog;
    use crate::instance::{self};

    fn store(engine: &Engine, limits: &Limits) -> Store<Guest> {
        let log = PluginLog::new("p".into(), "e".into(), limits);
        instance::store(engine, limits, log, CallContext::of_nothing(limits.time))
    }

    /// Calls this function within this time.
    async fn call(engine: &Engine, function: &str, time: Duration) -> Result<(), PluginFailure> {
        let wat = format!(
            r#"(component
                (core module $m (func (export "go") {function}))
                (core instance $i (instantiate $m))
                (func (export "go") (canon lift (core func $i "go"))))"#
        );
        let component = wasmtime::component::Component::new(&engine.wasmtime, wat::parse_str(wat).unwrap()).unwrap();
        let linker = wasmtime::component::Linker::<Guest>::new(&engine.wasmtime);
        let ready = linker.instantiate_pre(&component).unwrap();
        let answer = make(engine, store(engine, &Limits::default()), time, (), |store| {
            Box::pin(async move {
                let instance = ready.instantiate_async(&mut *store).await?;
                instance.get_typed_func::<(), ()>(&mut *store, "go")?.call_async(&mut *store, ()).await
            })
        });
        answer.await.0
    }

    #[tokio::test]
    async fn a_call_that_never_ends_goes_to_the_slow_lane_and_is_cut_off_there() {
        let engine = Engine::new().unwrap();
        assert_eq!(call(&engine, "", Duration::from_secs(10)).await, Ok(()));
        assert!(!engine.background.is_open(), "a short one does not");
        let time = Duration::from_millis(500);
        let began = std::time::Instant::now();
        assert_eq!(call(&engine, "(loop $more (br $more))", time).await, Err(PluginFailure::TimedOut(time)));
        assert!(began.elapsed() < 20 * time, "{:?}", began.elapsed());
        assert!(engine.background.is_open());
    }

    #[tokio::test]
    async fn a_panic_of_the_host_in_a_call_fails_that_call_alone() {
        let engine = Engine::new().unwrap();
        let mut linker = wasmtime::component::Linker::<Guest>::new(&engine.wasmtime);
        let panics =
            |_: wasmtime::StoreContextMut<'_, Guest>, (): ()| -> wasmtime::Result<()> { panic!("a fault of ours") };
        linker.root().func_wrap("host", panics).unwrap();
        let wat = r#"(component (import "host" (func $host))
            (core func $lowered (canon lower (func $host)))
            (core module $m (import "" "host" (func $host)) (func (export "go") call $host))
            (core instance $i (instantiate $m (with "" (instance (export "host" (func $lowered))))))
            (func (export "go") (canon lift (core func $i "go"))))"#;
        let component = wasmtime::component::Component::new(&engine.wasmtime, wat::parse_str(wat).unwrap()).unwrap();
        let ready = linker.instantiate_pre(&component).unwrap();
        let limits = Limits::default();
        for _ in 0..3 {
            let ready = ready.clone();
            let (answer, ..) = make(&engine, store(&engine, &limits), limits.time, (), |store| {
                Box::pin(async move {
                    let instance = ready.instantiate_async(&mut *store).await?;
                    let go = instance.get_typed_func::<(), ()>(&mut *store, "go")?;
                    go.call_async(&mut *store, ()).await
                })
            })
            .await;
            assert_eq!(answer, Err(PluginFailure::HostPanicked("a fault of ours".to_owned())));
        }
        let answer = make(&engine, store(&engine, &limits), limits.time, (), |_| Box::pin(async { Ok(1) }));
        assert_eq!(answer.await.0, Ok(1), "the engine works on");
    }
}
