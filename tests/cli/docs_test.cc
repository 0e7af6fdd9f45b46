// --help, the man page and the completion say the same.

#include <gtest/gtest.h>

#include <map>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <utility>

#include "cachecore/system/files.h"
#include "cli/command.h"

namespace cli {
namespace {

using cachecore::ReadFile;

// Verb -> its long options; "image build" is a verb, "image" is none.
using Options = std::map<std::string, std::set<std::string>>;

std::string Source(const std::string& path) {
  const auto text = ReadFile(HOLDFAST_SOURCE_DIR "/" + path);
  EXPECT_TRUE(text.ok()) << text.status().message();
  return text.ok() ? *text : "";
}

void AddOptionsIn(const std::string& text, std::set<std::string>* options) {
  const std::regex option("--[a-z][a-z0-9-]*");
  for (std::sregex_iterator it(text.begin(), text.end(), option), end; it != end; ++it) {
    options->insert(it->str());
  }
}

void AddOptionsOf(const CLI::App& app, std::set<std::string>* options) {
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) options->insert("--" + name);
  }
}

Options OptionsOfHelp() {
  Options options;
  int exit_code = 0;
  const std::unique_ptr<CLI::App> app = MakeCommandLine(&exit_code);
  for (const CLI::App* verb : app->get_subcommands({})) {
    const auto parts = verb->get_subcommands([](const CLI::App*) { return true; });
    if (parts.empty()) AddOptionsOf(*verb, &options[verb->get_name()]);
    for (const CLI::App* part : parts) {
      AddOptionsOf(*part, &options[verb->get_name() + " " + part->get_name()]);
    }
  }
  return options;
}

Options OptionsOfManPage() {
  Options options;
  std::string verb;
  std::istringstream lines(Source("packaging/man/holdfast.1.pod"));
  const std::regex heading("=head2 holdfast ([a-z-]+(?: [a-z]+)?).*");
  for (std::string line; std::getline(lines, line);) {
    std::smatch match;
    if (line.starts_with("=head")) verb.clear();
    if (std::regex_match(line, match, heading)) options[verb = match[1]].insert("--help");
    if (!verb.empty() && line.starts_with("=item ")) AddOptionsIn(line, &options[verb]);
  }
  return options;
}

// Of a verb that has a page of its own.
std::set<std::string> OptionsOfOwnPage(const std::string& verb) {
  std::set<std::string> options;
  std::istringstream lines(Source("packaging/man/holdfast-" + verb + ".1.pod"));
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("=item ")) AddOptionsIn(line, &options);
  }
  return options;
}

// bash and zsh share a syntax here.
Options OptionsOfCompletion(const std::string& shell) {
  Options options;
  const std::string text = Source("packaging/completions/holdfast." + shell);
  const std::string verb = "'?([a-z-]+(?: [a-z]+)?)'?";
  const std::regex verb_line("\n    " + (shell == "fish" ? "case " + verb + "; " : verb + "\\) ") +
                             "echo \"([^\"]*)\"");
  for (std::sregex_iterator it(text.begin(), text.end(), verb_line), end; it != end; ++it) {
    AddOptionsIn((*it)[2], &options[(*it)[1]]);
  }
  return options;
}

TEST(DocsTest, TheHelpListsEveryVerb) {
  std::set<std::string> names;
  for (const auto& [verb, options] : OptionsOfHelp()) names.insert(verb.substr(0, verb.find(' ')));
  EXPECT_EQ(names.size(), Verbs().size());
  for (const Verb& verb : Verbs()) EXPECT_TRUE(names.contains(verb.name)) << verb.name;
}

TEST(DocsTest, TheManPageHasTheOptionsOfTheHelpAndNoOthers) {
  EXPECT_EQ(OptionsOfManPage(), OptionsOfHelp());
}

TEST(DocsTest, APageOfAVerbHasTheOptionsOfItsHelpAndNoOthers) {
  EXPECT_EQ(OptionsOfOwnPage("cachefiles-run"), OptionsOfHelp()["cachefiles-run"]);
}

TEST(DocsTest, TheCompletionHasTheOptionsOfTheHelpAndNoOthers) {
  for (const char* shell : {"bash", "zsh", "fish"}) {
    EXPECT_EQ(OptionsOfCompletion(shell), OptionsOfHelp()) << shell;
  }
}

TEST(DocsTest, TheSynopsisHasEveryVerb) {
  const std::string page = Source("packaging/man/holdfast.1.pod");
  const std::string synopsis = page.substr(0, page.find("=head1 DESCRIPTION"));
  for (const Verb& verb : Verbs()) {
    EXPECT_NE(synopsis.find("B<holdfast " + std::string(verb.name)), std::string::npos)
        << verb.name;
  }
}

TEST(DocsTest, TheCompletionOffersEveryVerb) {
  std::string verbs;
  for (const Verb& verb : Verbs()) verbs += (verbs.empty() ? "" : " ") + std::string(verb.name);
  const std::pair<const char*, std::string> offers[] = {{"bash", "compgen -W '" + verbs + "'"},
                                                        {"zsh", "compadd -- " + verbs + " ;;"},
                                                        {"fish", "'%s\\n' " + verbs + "\n"}};
  for (const auto& [shell, offer] : offers) {
    EXPECT_NE(Source(std::string("packaging/completions/holdfast.") + shell).find(offer),
              std::string::npos)
        << shell;
  }
}

}  // namespace
}  // namespace cli
