#include "message.h"

#include <stdio.h>
#include <string.h>

// Where the next character that is no white space stands, from `at` on.
static size_t skip_space(struct slice json, size_t at) {
    while (at < json.length && strchr(" \t\r\n", json.start[at]) != NULL) {
        at++;
    }
    return at;
}

// `at` is that of a quotation mark; where the one stands that closes it.
static size_t closing(struct slice json, size_t at) {
    for (at++; at < json.length && json.start[at] != '"'; at++) {
        if (json.start[at] == '\\') {
            at++;
        }
    }
    return at;
}

bool json_text(struct slice json, const char *key, char *text, size_t size) {
    size_t key_length = strlen(key);
    for (size_t at = 0; at < json.length; at++) {
        if (json.start[at] != '"') {
            continue;
        }
        size_t start = at + 1;
        at = closing(json, at);
        if (at >= json.length) {
            return false;
        }
        bool found = at - start == key_length && memcmp(json.start + start, key, key_length) == 0;
        size_t colon = skip_space(json, at + 1);
        if (!found || colon >= json.length || json.start[colon] != ':') {
            continue;
        }
        size_t value = skip_space(json, colon + 1);
        if (value >= json.length || json.start[value] != '"') {
            return false;
        }
        size_t end = closing(json, value);
        size_t length = end - value - 1;
        if (end >= json.length || length == 0 || length >= size) {
            return false;
        }
        memcpy(text, json.start + value + 1, length);
        text[length] = '\0';
        return true;
    }
    return false;
}

size_t whole_characters(const char *text) {
    size_t length = strlen(text), first = length;
    // Back to where the last character begins: UTF-8 has at most three bytes behind that.
    while (first > 0 && length - first < 3 && ((unsigned char)text[first - 1] & 0xC0) == 0x80) {
        first--;
    }
    if (first == 0) {
        return length;
    }
    unsigned char lead = (unsigned char)text[first - 1];
    size_t wanted = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : lead >= 0xC0 ? 2 : 1;
    return length - first + 1 < wanted ? first - 1 : length;
}

bool same(const char *one, const char *other) {
    return strcmp(one, other) == 0;
}

void message(char *text, size_t size, const char *greeting, const char *user, const char *product) {
    snprintf(text, size, "%s, %s: %s is ordered", greeting, user, product);
}
