namespace Vmm.Cli;

/// <summary>Values that are one of a few words.</summary>
internal static class Choice
{
    /// <summary>What the word <paramref name="value"/> stands for.</summary>
    /// <exception cref="UsageException">It is none of the <paramref name="allowed"/> words; the message lists them.</exception>
    public static T Parse<T>(OptionValue value, params ReadOnlySpan<(string Word, T Meaning)> allowed)
    {
        foreach ((string word, T meaning) in allowed)
        {
            if (word == value.Text)
                return meaning;
        }
        string words = "";
        foreach ((string word, _) in allowed)
            words += words.Length == 0 ? word : ", " + word;
        throw value.Refuse($"is not allowed: choose one of {words}");
    }

    /// <summary>Whether a switch is on.</summary>
    /// <exception cref="UsageException">The value is not on, off, true or false.</exception>
    public static bool ParseSwitch(OptionValue value) =>
        Parse(value, ("on", true), ("off", false), ("true", true), ("false", false));
}
