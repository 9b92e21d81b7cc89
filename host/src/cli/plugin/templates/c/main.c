// {{name}}: a plugin for notify-host. `exports_notify_plugin_handler_handle` is where your work
// goes; what there is to call stands in bindings/plugin.h.
//
// Texts that are returned are freed by the bindings: they come from `copy`.

#include <stdio.h>
#include <stdlib.h>

#include "bindings/plugin.h"
#include "message.h"

// What an operator may set under [config]: JSON Schema. The host fills in its defaults.
static const char CONFIG_SCHEMA[] =
    "{\"type\": \"object\", \"additionalProperties\": false, \"properties\": {"
    "\"greeting\": {\"type\": \"string\", \"minLength\": 1, \"default\": \"Thank you\","
    " \"description\": \"how the message begins\"},"
    "\"ignore-user\": {\"type\": \"string\", \"description\": \"whose orders are none of our business\"}}}";

static plugin_string_t copy(const char *text) {
    plugin_string_t string;
    plugin_string_dup_n(&string, text, whole_characters(text));
    return string;
}

// A text in a buffer of the caller's, borrowed for one call of the host.
static plugin_string_t lend(const char *text) {
    return (plugin_string_t){(uint8_t *)text, whole_characters(text)};
}

// For helpers that the plugin does not use, or not yet.
#define MAY_BE_UNUSED __attribute__((unused))

// Handled.
MAY_BE_UNUSED static bool done(exports_notify_plugin_handler_outcome_t *outcome) {
    outcome->tag = NOTIFY_PLUGIN_TYPES_OUTCOME_DONE;
    outcome->val.done.is_some = false;
    return true;
}

// Handled. The note (a message id, an HTTP status) is for the operator.
MAY_BE_UNUSED static bool done_with(exports_notify_plugin_handler_outcome_t *outcome, const char *note) {
    outcome->tag = NOTIFY_PLUGIN_TYPES_OUTCOME_DONE;
    outcome->val.done.is_some = true;
    outcome->val.done.val = copy(note);
    return true;
}

// Looked at, and deliberately not acted on.
MAY_BE_UNUSED static bool skipped(exports_notify_plugin_handler_outcome_t *outcome, const char *reason) {
    outcome->tag = NOTIFY_PLUGIN_TYPES_OUTCOME_SKIPPED;
    outcome->val.skipped = copy(reason);
    return true;
}

// Try this event again, when the host thinks best.
MAY_BE_UNUSED static bool retry(exports_notify_plugin_handler_failure_t *failure, const char *reason) {
    failure->tag = NOTIFY_PLUGIN_TYPES_FAILURE_RETRY;
    failure->val.retry.reason = copy(reason);
    failure->val.retry.after.is_some = false;
    return false;
}

// Try this event again, not before so many milliseconds have passed.
MAY_BE_UNUSED static bool retry_after(exports_notify_plugin_handler_failure_t *failure, const char *reason,
                                      uint64_t millis) {
    failure->tag = NOTIFY_PLUGIN_TYPES_FAILURE_RETRY;
    failure->val.retry.reason = copy(reason);
    failure->val.retry.after.is_some = true;
    failure->val.retry.after.val = millis;
    return false;
}

// This event will never work here: to the dead letters. The code is short, of a-z, 0-9 and -.
MAY_BE_UNUSED static bool reject(exports_notify_plugin_handler_failure_t *failure, const char *code,
                                 const char *reason) {
    failure->tag = NOTIFY_PLUGIN_TYPES_FAILURE_REJECT;
    failure->val.reject.code = copy(code);
    failure->val.reject.reason = copy(reason);
    return false;
}

// No event can work until an operator acts: the host pauses the plugin and keeps its events.
MAY_BE_UNUSED static bool misconfigured(exports_notify_plugin_handler_failure_t *failure, const char *reason) {
    failure->tag = NOTIFY_PLUGIN_TYPES_FAILURE_MISCONFIGURED;
    failure->val.misconfigured = copy(reason);
    return false;
}

// One setting as a text that ends with 0; NULL if it is not set.
static char *setting(const char *key) {
    plugin_string_t name = lend(key), value;
    char *text = NULL;
    if (notify_plugin_config_get(&name, &value)) {
        asprintf(&text, "%.*s", (int)value.len, (const char *)value.ptr);
    }
    return text;
}

// What the plugin is, and what it would like. Called once, when it is loaded.
void exports_notify_plugin_metadata_describe(exports_notify_plugin_metadata_plugin_info_t *info) {
    *info = (exports_notify_plugin_metadata_plugin_info_t){
        .name = copy("{{name}}"),
        .version = copy("0.1.0"),
        .description = copy("Thanks for every order"),
        .config_schema = {.is_some = true, .val = copy(CONFIG_SCHEMA)},
    };
    // `*` is one word of a type, `#` any number of them. Without a subscription: every event.
    info->subscriptions.len = 1;
    info->subscriptions.ptr = calloc(1, sizeof *info->subscriptions.ptr);
    info->subscriptions.ptr[0].event_type = copy("OrderCreated");
}

// One attempt at one event, in a fresh instance. A trap is tried again later.
bool exports_notify_plugin_handler_handle(exports_notify_plugin_handler_event_t *event,
                                          exports_notify_plugin_handler_delivery_t *delivery,
                                          exports_notify_plugin_handler_outcome_t *outcome,
                                          exports_notify_plugin_handler_failure_t *failure) {
    struct slice data = {(const char *)event->data.ptr, event->data.len};
    char order_id[100], user[100], product[200];
    if (!json_text(data, "order_id", order_id, sizeof order_id)) {
        return reject(failure, "bad-data", "the order has no order_id");
    }
    if (!json_text(data, "user_id", user, sizeof user)) {
        snprintf(user, sizeof user, "stranger");
    }
    char reason[300];
    const char *ignored = setting("ignore-user");
    if (ignored != NULL && same(user, ignored)) {
        snprintf(reason, sizeof reason, "the orders of %s are ignored", user);
        return skipped(outcome, reason);
    }
    if (!json_text(data, "product", product, sizeof product)) {
        // What may be better later.
        snprintf(reason, sizeof reason, "order %s has no product yet", order_id);
        return retry(failure, reason);
    }
    char text[500], attempt[20];
    const char *greeting = setting("greeting");
    message(text, sizeof text, greeting != NULL ? greeting : "Thank you", user, product);
    snprintf(attempt, sizeof attempt, "%u", (unsigned)delivery->attempt);
    plugin_tuple2_string_string_t fields[] = {
        {lend("order_id"), lend(order_id)},
        {lend("attempt"), lend(attempt)},
    };
    notify_plugin_log_attributes_t list = {fields, sizeof fields / sizeof fields[0]};
    plugin_string_t line = lend(text);
    notify_plugin_log_write(NOTIFY_PLUGIN_LOG_LEVEL_INFO, &line, &list);
    return done(outcome);
}
