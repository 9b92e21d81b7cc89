#include "message.h"

#undef NDEBUG
#include <assert.h>
#include <string.h>

int main(void) {
    char text[100];
    const char *order = "{\"note\": \"\\\"product\\\": \", \"product\": \"Lovelace\", \"count\": 1}";
    struct slice json = {order, strlen(order)};
    assert(json_text(json, "product", text, sizeof text) && same(text, "Lovelace"));
    assert(!json_text(json, "user_id", text, sizeof text));
    assert(!json_text(json, "count", text, sizeof text));
    assert(!json_text(json, "product", text, 8));
    message(text, sizeof text, "Hello", "ada", "Lovelace");
    assert(same(text, "Hello, ada: Lovelace is ordered"));
    return 0;
}
