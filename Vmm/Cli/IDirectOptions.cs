namespace Vmm.Cli;

/// <summary>Options that <see cref="DirectParser"/> can set by their names. These stand beside the attributes by which the parser's library finds the same options;
/// a test compares the two.</summary>
internal interface IDirectOptions : IVerbOptions
{
    /// <summary>Sets an option that takes a value.</summary>
    /// <param name="name">Its name, without dashes.</param>
    /// <param name="value">Its value.</param>
    /// <returns>Whether there is one of that name.</returns>
    bool TrySet(string name, string value);

    /// <summary>Sets an option without a value.</summary>
    /// <param name="name">Its name, without dashes.</param>
    /// <returns>Whether there is one of that name.</returns>
    bool TrySwitch(string name);
}
