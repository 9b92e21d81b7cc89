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
    const char *whole[] = {"", "abc", "ü", "abü", "€", "x🎉"};
    for (size_t at = 0; at < sizeof whole / sizeof whole[0]; at++) {
        assert(whole_characters(whole[at]) == strlen(whole[at]));
    }
    assert(whole_characters("ab\xC3") == 2 && whole_characters("ab\xE2\x82") == 2);
    assert(whole_characters("ab\xF0\x9F\x8E") == 2 && whole_characters("\xF0") == 0);
    return 0;
}
