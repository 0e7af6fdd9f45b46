// --help, the man page and the completion say the same.

#include <gtest/gtest.h>

#include <map>
#include <regex>
#include <set>
#include <sstream>
#include <string>

#include "cli/command.h"
#include "cli/files.h"

namespace cli {
namespace {

using Options = std::map<std::string, std::set<std::string>>;  // Verb -> its long options.

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

Options OptionsOfHelp() {
  Options options;
  int exit_code = 0;
  const std::unique_ptr<CLI::App> app = MakeCommandLine(&exit_code);
  for (const CLI::App* verb : app->get_subcommands({})) {
    std::set<std::string>& known = options[verb->get_name()];
    for (const CLI::Option* option : verb->get_options()) {
      for (const std::string& name : option->get_lnames()) known.insert("--" + name);
    }
  }
  return options;
}

Options OptionsOfManPage() {
  Options options;
  std::string verb;
  std::istringstream lines(Source("packaging/man/holdfast.1.pod"));
  const std::regex heading("=head2 holdfast ([a-z]+).*");
  for (std::string line; std::getline(lines, line);) {
    std::smatch match;
    if (line.starts_with("=head")) verb.clear();
    if (std::regex_match(line, match, heading)) options[verb = match[1]].insert("--help");
    if (!verb.empty() && line.starts_with("=item ")) AddOptionsIn(line, &options[verb]);
  }
  return options;
}

Options OptionsOfCompletion() {
  Options options;
  const std::string text = Source("packaging/completions/holdfast.bash");
  const std::regex verb_line("\n    ([a-z]+)\\) echo \"([^\"]*)\"");
  for (std::sregex_iterator it(text.begin(), text.end(), verb_line), end; it != end; ++it) {
    AddOptionsIn((*it)[2], &options[(*it)[1]]);
  }
  return options;
}

TEST(DocsTest, TheHelpListsEveryVerb) {
  const Options help = OptionsOfHelp();
  EXPECT_EQ(help.size(), Verbs().size());
  for (const Verb& verb : Verbs()) EXPECT_TRUE(help.contains(verb.name)) << verb.name;
}

TEST(DocsTest, TheManPageHasTheOptionsOfTheHelpAndNoOthers) {
  EXPECT_EQ(OptionsOfManPage(), OptionsOfHelp());
}

TEST(DocsTest, TheCompletionHasTheOptionsOfTheHelpAndNoOthers) {
  EXPECT_EQ(OptionsOfCompletion(), OptionsOfHelp());
}

TEST(DocsTest, TheCompletionOffersEveryVerb) {
  std::string verbs;
  for (const Verb& verb : Verbs()) verbs += (verbs.empty() ? "" : " ") + std::string(verb.name);
  EXPECT_NE(Source("packaging/completions/holdfast.bash").find("compgen -W '" + verbs + "'"),
            std::string::npos);
}

}  // namespace
}  // namespace cli
