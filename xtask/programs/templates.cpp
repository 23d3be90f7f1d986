// The C++ compile workload: standard headers and templates that instantiate deeply.
#include <algorithm>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <regex>
#include <set>
#include <string>
#include <tuple>
#include <unordered_map>
#include <variant>
#include <vector>

template <int N> struct tower {
    using below = tower<N - 1>;
    std::tuple<std::integral_constant<int, N>, below> parts;
    template <class F> auto visit(F &&f) const { return f(N) + std::get<1>(parts).visit(f); }
};
template <> struct tower<0> {
    template <class F> auto visit(F &&) const { return 0; }
};

template <class Key, class Value, std::size_t Size> struct store {
    std::map<Key, std::vector<Value>> ordered;
    std::unordered_map<std::string, std::shared_ptr<Value>> named;
    std::variant<Key, Value, std::array<int, Size>> last;
    void add(const std::string &name, Key key, Value value) {
        ordered[key].push_back(value);
        named.emplace(name, std::make_shared<Value>(value));
        last = value;
        std::sort(ordered[key].begin(), ordered[key].end());
    }
};

template <std::size_t... Sizes> int stores(std::index_sequence<Sizes...>) {
    auto one = [](auto size) {
        store<int, double, decltype(size)::value + 1> numbers;
        numbers.add("n", int(decltype(size)::value), 1.5);
        store<std::string, long, decltype(size)::value + 2> words;
        words.add("w", "key", 7L);
        return int(numbers.ordered.size() + words.named.size());
    };
    return (one(std::integral_constant<std::size_t, Sizes>{}) + ... + 0);
}

int main(int argc, char **argv) {
    std::regex pattern("([a-z]+)=([0-9]+)");
    std::smatch match;
    std::string text = argc > 1 ? argv[1] : "a=1";
    int found = std::regex_search(text, match, pattern) ? int(match.size()) : 0;
    std::function<int(int)> square = [](int n) { return n * n; };
    std::cout << found + tower<16>{}.visit(square) + stores(std::make_index_sequence<8>{}) << "\n";
}
