using Vmm.Vhost.Native;

namespace Vmm.Cli.Exec;

/// <summary>The value of <c>--env</c>: <c>NAME=VALUE</c>, or <c>NAME</c> for the value that it has here.</summary>
internal static class EnvironmentOption
{
    /// <summary>The option's name.</summary>
    public const string Name = "--env";

    /// <summary>The variable that <paramref name="text"/> names, and its value; null if it has none here.</summary>
    /// <exception cref="UsageException">There is no name.</exception>
    public static (string Name, string? Value) Parse(string text)
    {
        int equals = text.IndexOf('=', StringComparison.Ordinal);
        string name = equals < 0 ? text : text[..equals];
        return name.Length > 0
            ? (name, equals < 0 ? ProcessText.Variable(name) : text[(equals + 1)..])
            : throw new OptionValue(Name, null, text).Refuse("has no name: write NAME=VALUE, or NAME");
    }
}
