namespace Vmm.Guest;

/// <summary>What is known of a kernel's modules. Names have underscores.</summary>
internal interface IModuleIndex
{
    /// <summary>Whether <paramref name="name"/> is built into the kernel.</summary>
    bool IsBuiltIn(string name);

    /// <summary>Whether <paramref name="driver"/> is, by its module or by the symbol of the kernel's configuration.</summary>
    bool IsBuiltIn(GuestDriver driver);

    /// <summary>The file of module <paramref name="name"/>, or null.</summary>
    /// <param name="name">The module.</param>
    /// <param name="isOptional">Whether the guest does without it: then one that was never built is none.</param>
    string? Find(string name, bool isOptional = false);

    /// <summary>The modules whose symbols <paramref name="name"/> uses, in any order.</summary>
    IEnumerable<string> DependenciesOf(string name);

    /// <summary>The modules or aliases that <paramref name="name"/> wants to be there before it and asks for by itself otherwise.</summary>
    IEnumerable<string> SoftDependenciesOf(string name);

    /// <summary>The modules that answer to <paramref name="alias"/>, which may be a module's name.</summary>
    IEnumerable<string> Resolve(string alias);
}
